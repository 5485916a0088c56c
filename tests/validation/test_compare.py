"""Errors and verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from validations import record_of, validation_of

from profiler.errors import StoreError
from profiler.record import Record
from profiler.validation import cases, compare
from profiler.validation.compare import Wanted, judge, relative_error
from profiler.validation.result import WRONG, Figure, Validation
from profiler.validation.summary import summarise

positive = st.floats(min_value=1e-6, max_value=1e15)


@given(measured=positive, share=st.floats(min_value=-0.9, max_value=9.0))
def test_an_error_is_the_share_that_was_put_in(measured: float, share: float) -> None:
    assert relative_error(measured * (1 + share), measured) == pytest.approx(share, abs=1e-9)


@given(measured=positive, bound=st.floats(min_value=1e-6, max_value=0.5))
def test_a_bound_holds_on_both_sides_and_ends(measured: float, bound: float) -> None:
    wanted = Wanted(metric="peak_allocated", measured=measured, bound=bound)
    for sign in (-1, 1):
        assert judge(wanted, measured * (1 + sign * 0.999 * bound)) == "within"
        assert judge(wanted, measured * (1 + sign * 1.001 * bound)) == "unexplained"


def test_what_is_given_in_whole_units_may_be_half_a_unit_off() -> None:
    wanted = Wanted(metric="peak_allocated", measured=100.0, bound=0.0, resolution=2.0)
    assert judge(wanted, 101.0) == "within"
    assert judge(wanted, 101.01) == "unexplained"


def test_verdicts() -> None:
    wanted = Wanted(metric="peak_allocated", measured=100, bound=0.01, explanation="It was warm.")
    assert judge(wanted, 150) == "explained"
    assert judge(wanted, 150, unmet=True) == "other versions"
    assert judge(wanted, 100.5, unmet=True) == "within"
    assert judge(wanted, None) == "no result"
    assert judge(Wanted(metric="time.step", measured=1.0, bound=None), 9.0) == "no claim"


def entry(group: str, case: str) -> compare.Entry:
    found = cases.group(group)
    return compare.entries(found, [found.case(case)], found.runs[:1])[0]


def figures(entry: compare.Entry, record: Record | None) -> dict[str, Figure]:
    return {figure.metric: figure for figure in compare.figures(entry, record)}


def test_other_versions_are_named_where_a_bound_needs_them() -> None:
    lora = entry("a100-trainer", "mistral-7b-lora-r16")
    record = record_of(lora, 0.9)
    figure = figures(lora, record)["peak_allocated"]
    assert figure.verdict == "other versions"
    assert figure.explanation == (
        "published with transformers 4.48.1 and peft 0.13.2, here 5.23.0 and 0.20.0"
    )
    record.environment |= {"transformers": "4.48.1", "peft": "0.13.2"}
    assert figures(lora, record)["peak_allocated"].verdict == "unexplained"


def test_a_build_is_no_other_version() -> None:
    lora = entry("peft-metamathqa", "lora--llama-3.2-3B-rank32")
    assert "torch" not in compare.differing(lora, record_of(lora, 1.0))


def test_a_constant_is_added_to_what_is_predicted() -> None:
    group = cases.group("peft-metamathqa")
    run = next(run for run in group.runs if run.name == "history")
    (one,) = compare.entries(group, group.cases[:1], [run])
    record = record_of(one, 1.0)
    figure = figures(one, record)["history.after_step_mean"]
    (constant,) = {m.constant for m in run.measures if m.constant}
    assert figure.constant == constant
    assert record.memory is not None
    assert record.memory.history is not None
    assert figure.predicted == record.memory.history.after_step_mean + constant


def test_what_has_no_result_fails_with_its_reason() -> None:
    t4 = entry("t4-qlora", "tinyllama-2x512-eager")
    failed = Record(id="x", status="failed", error="ValueError: no", source="simulated", spec={})
    found = figures(t4, failed)
    assert {one.verdict for one in found.values()} == {"no result"}
    assert {one.explanation for one in found.values()} == {"ValueError: no"}
    assert {one.verdict for one in figures(t4, None).values()} == {"no result"}


def test_another_bound_leaves_what_is_exact_exact() -> None:
    case = "lora--llama-3.2-3B-rank32"
    group = cases.group("peft-metamathqa")
    bounds = {
        one.metric: one.bound
        for run in group.runs
        for entry in compare.entries(group, [group.case(case)], [run])
        for one in compare.with_bound(entry, 0.5).wanted
    }
    assert bounds == {
        "peak_reserved": 0.5,
        "history.reserved_mean": 0.5,
        "history.after_step_mean": 0.5,
        "after_step_allocated": 0.5,
        "params.total": 0.0,
        "params.trainable": 0.0,
        "params.adapter_file_bytes": 0.0,
        "time.step": 0.5,
    }


def test_a_validation_passes_unless_something_is_off_without_a_reason() -> None:
    exact = validation_of([1.0])
    assert exact.passed
    assert not validation_of([1.3]).passed
    # Explained and of other versions: off, and no failure.
    known = [one for one in validation_of([1.3]).figures if one.verdict not in WRONG]
    assert {"explained", "other versions"} <= {one.verdict for one in known}
    assert exact.model_copy(update={"figures": known}).passed


def test_a_validation_comes_back_from_its_file(off: Validation) -> None:
    assert Validation.from_json(off.to_json()) == off
    for wrong in ("{", "[]", '{"schema": 99}', '{"schema": 1}'):
        with pytest.raises(StoreError):
            Validation.from_json(wrong)


def test_a_summary_is_over_the_errors_of_its_group() -> None:
    off = validation_of([1.0, 1.02, 0.97])
    for one in summarise(off.figures):
        mine = [x for x in off.figures if (x.group, x.metric) == (one.group, one.metric)]
        sizes = sorted(abs(x.error) for x in mine if x.error is not None)
        middle = len(sizes) // 2
        assert one.median == pytest.approx((sizes[middle] + sizes[~middle]) / 2)
        assert one.worst is not None
        assert abs(one.worst) == pytest.approx(sizes[-1])
        assert one.cases == len(mine)
        if one.within is not None:
            assert one.within == sum(x.verdict == "within" for x in mine)


def test_ranks_are_of_the_order_alone() -> None:
    exact = validation_of([1.0])
    by_metric = {(one.group, one.metric): one for one in summarise(exact.figures)}
    assert by_metric["peft-metamathqa", "time.step"].rank_correlation == pytest.approx(1.0)
    assert by_metric["a100-trainer", "time.step"].rank_correlation is None
