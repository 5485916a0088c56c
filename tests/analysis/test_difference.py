"""Properties of differences between records: they sum, they are nothing for equals, they swap."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.counterparts import counterparts
from profiler.analysis.difference import Difference, difference
from profiler.analysis.growth import Limit, check_metrics, failures
from profiler.errors import UsageError
from profiler.record import Record

COLUMNS = ("activations", "gradients", "optimizer_state")

holders = st.fixed_dictionaries(
    {
        "category": st.sampled_from(("base_parameters", "logits_and_loss", *COLUMNS)),
        "op": st.sampled_from(("aten.mul", "aten._to_copy", "load")),
        "module": st.sampled_from(
            ("", "model.layers.*.fc", "base_model.model.model.layers.*.fc.base_layer", "model.norm")
        ),
        "source": st.sampled_from(("", "m.py:1", "m.py:2")),
        "shape": st.sampled_from(([2], [2, 3])),
        "dtype": st.sampled_from(("float32", "bfloat16")),
        "count": st.integers(1, 3),
        "bytes": st.integers(1, 9),
    }
)


def record(
    groups: list[dict[str, Any]], *, named: int = 10**6, holds: bool = True, **changes: Any
) -> Record:
    """A record that is consistent with its groups of blocks; the smallest of them in a rest."""
    unique = {tuple(str(one[key]) for key in list(one)[:6]): one for one in groups}
    ordered = sorted(unique.values(), key=lambda one: -one["bytes"])
    at_peak: Counter[str] = Counter()
    modules: dict[str, Counter[str]] = {}
    for one in ordered:
        at_peak[one["category"]] += one["bytes"]
        if one["category"] in COLUMNS:
            modules.setdefault(one["module"], Counter())[one["category"]] += one["bytes"]
    rest: dict[str, dict[str, Any]] = {}
    for one in ordered[named:]:
        left = rest.setdefault(
            one["category"],
            {"category": one["category"], "op": "", "module": "", "count": 0, "bytes": 0},
        )
        left["count"] += one["count"]
        left["bytes"] += one["bytes"]
    memory = {
        "peak_allocated": sum(at_peak.values()),
        "at_peak": dict(at_peak),
        "modules": {path: dict(row) for path, row in modules.items()},
        "holders": [*ordered[:named], *rest.values()] if holds else [],
    }
    data = {
        "schema": 1, "id": "cell", "status": "ok", "source": "simulated",
        "spec": {"model": "m", "method": {"label": "lora"}}, "memory": memory,
    }  # fmt: skip
    return Record.from_dict({**data, **changes})


records = st.builds(
    record, st.lists(holders, max_size=12), named=st.integers(1, 12), holds=st.booleans()
)


@given(records)
def test_a_record_does_not_differ_from_itself(one: Record) -> None:
    found = difference(one, one)
    assert not found.changed
    assert not found.settings
    assert not found.environment
    assert not any(found.groups.values())


@given(records, records)
def test_every_level_sums_to_the_one_above(one: Record, other: Record) -> None:
    found = difference(one, other)
    if not (one.memory.at_peak and other.memory.at_peak):
        assert not found.categories
        return
    total = found.figures["peak_allocated"].amount
    assert sum(change.amount or 0 for change in found.categories.values()) == total
    for category, change in found.categories.items():
        assert sum(group.change for group in found.groups[category]) == change.amount
        for group in found.groups[category]:
            assert group.change
            if group.before or group.after:
                sides = [sum(one.bytes for one in side) for side in (group.before, group.after)]
                assert sides[1] - sides[0] == group.change


@given(records, records)
def test_swapped_records_swap_the_signs(one: Record, other: Record) -> None:
    def parts(found: Difference, sign: int) -> Any:
        return {
            category: {
                (group.op, group.modules, *((group.before, group.after)[::sign])):
                    sign * group.change
                for group in groups
            }
            for category, groups in found.groups.items()
        }  # fmt: skip

    there, back = difference(one, other), difference(other, one)
    assert parts(there, 1) == parts(back, -1)
    assert {name: (change.before, change.after) for name, change in there.figures.items()} == {
        name: (change.after, change.before) for name, change in back.figures.items()
    }


def block(**changes: Any) -> dict[str, Any]:
    return {
        "category": "activations", "op": "aten.mul", "module": "model.layers.*.fc",
        "source": "m.py:1", "shape": [2], "dtype": "float32", "count": 2, "bytes": 8, **changes,
    }  # fmt: skip


def test_lines_that_a_version_moved_are_no_difference() -> None:
    found = difference(record([block()]), record([block(source="m.py:7")]))
    assert not found.groups["activations"]


@pytest.mark.parametrize(
    ("module", "adapted"),
    [
        ("model.layers.*.fc", "base_model.model.model.layers.*.fc.base_layer"),
        ("model", "base_model.model.model"),
        ("", "base_model"),
        ("", "base_model.model"),
    ],
)
def test_a_module_that_an_adapter_wraps_is_the_same(module: str, adapted: str) -> None:
    found = difference(record([block(module=module)]), record([block(module=adapted)]))
    assert not found.groups["activations"]


def test_what_is_alike_in_several_modules_is_one_group() -> None:
    modules = ("model.layers.*.fc", "model.norm")
    after = [block(module=module, dtype="float64", bytes=16) for module in modules]
    (group,) = difference(
        record([block(module=module) for module in modules]), record(after)
    ).groups["activations"]
    assert group.modules == ("layers.*.fc", "norm")
    assert (group.change, group.before[0].count, group.after[0].count) == (16, 4, 4)
    assert (group.before[0].dtype, group.after[0].dtype) == ("float32", "float64")


def test_what_one_record_may_hold_unnamed_is_not_called_absent() -> None:
    """B names the small block, A has it in its rest: they are equal, and nothing is said of it."""
    small = block(op="aten.small", bytes=1)
    before = record([block(), small], named=1)
    found = difference(before, record([block(), small]))
    assert found.groups["activations"] == []
    grown = difference(before, record([block(), {**small, "bytes": 5}])).groups["activations"]
    assert [(group.op, group.change) for group in grown] == [("aten.small", 5), ("", -1)]


def test_options_that_only_a_newer_library_has_were_not_asked_for_otherwise() -> None:
    def made(id: str, **config: Any) -> Record:
        method = {"label": "lora", "config": {"peft_type": "LORA", "peft_version": id, **config}}
        return record([block()], id=id, spec={"model": "m", "method": method})

    old, new = made("a", r=8), made("a", r=8, fresh=16)
    assert difference(old, new).settings == []
    names = [one.name for one in difference(old, made("b", r=16, fresh=16)).settings]
    assert names == ["method.r", "method.fresh"]


# --- pairs --------------------------------------------------------------------------------------


def cell(id: str, **spec: Any) -> Record:
    base = {"model": "m", "method": {"label": "lora"}, "batch_size": 1, "device": "l40s"}
    source = spec.pop("source", "simulated")
    return record([block()], id=id, spec={**base, **spec}, source=source)


def ids(pairs: list[tuple[Record, Record]]) -> list[tuple[str, str]]:
    return [(one.id, other.id) for one, other in pairs]


def test_cells_with_one_id_are_pairs_whatever_else_is_there() -> None:
    found = counterparts([cell("a"), cell("b", batch_size=2)], [cell("b"), cell("c"), cell("a")])
    assert ids(found.pairs) == [("a", "a"), ("b", "b")]
    assert ([one.id for one in found.before], [one.id for one in found.after]) == ([], ["c"])


def test_a_study_run_again_otherwise_pairs_cell_by_cell() -> None:
    before = [cell(f"a{size}", batch_size=size, stack="trainer") for size in (1, 2, 4)]
    after = [cell(f"b{size}", batch_size=size, stack="script") for size in (4, 1, 2)]
    found = counterparts(before, after)
    assert ids(found.pairs) == [("a1", "b1"), ("a2", "b2"), ("a4", "b4")]


def test_a_cell_of_another_method_is_no_counterpart() -> None:
    gone = cell("gone", method={"label": "ia3"})
    new = cell("new", method={"label": "vera"})
    found = counterparts([cell("a"), gone], [cell("a"), new])
    assert ids(found.pairs) == [("a", "a")]
    assert (found.before, found.after) == ([gone], [new])


def test_what_could_go_with_several_is_left_alone() -> None:
    before = [cell("a", batch_size=1), cell("x", method={"label": "ia3"})]
    after = [cell("b", batch_size=2), cell("c", batch_size=4)]
    assert counterparts(before, after).pairs == []


def test_a_measured_cell_is_not_taken_for_a_simulated_one() -> None:
    both = [cell("x", method={"label": "ia3"})]
    before = [*both, cell("a", device="cpu", source="measured")]
    after = [*both, cell("b", device="sim:cpu")]
    assert ids(counterparts(before, after).pairs) == [("x", "x")]


# --- limits -------------------------------------------------------------------------------------


@given(st.integers(1, 10**12), st.integers(0, 10**4))
def test_a_share_is_exceeded_by_one_byte_more(before: int, hundredths: int) -> None:
    limit = Limit.parse(f"{hundredths / 100}%")
    allowed = before * hundredths // 10**4
    assert not limit.exceeded(before, before + allowed)
    assert limit.exceeded(before, before + allowed + 1)
    assert not limit.exceeded(before, before - 1)


@pytest.mark.parametrize(
    ("text", "nbytes"), [("0", 0), ("64MiB", 2**26), ("1.5 kib", 1536), ("2GB", 2 * 10**9)]
)
def test_a_size_is_exceeded_by_one_byte_more(text: str, nbytes: int) -> None:
    limit = Limit.parse(text)
    assert not limit.exceeded(7, 7 + nbytes)
    assert limit.exceeded(7, 8 + nbytes)


@pytest.mark.parametrize("text", ["", "-1%", "5 percent", "1e3", "MiB", "nan", "1TiB", "٣%"])
def test_a_wrong_limit_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"--fail-over takes") as raised:
        Limit.parse(text)
    assert "\n" not in str(raised.value)


def test_a_size_does_not_limit_what_is_no_bytes() -> None:
    check_metrics(Limit.parse("1%"), ["flops"])
    check_metrics(Limit.parse("0"), ["flops"])
    with pytest.raises(UsageError, match="flops is in FLOPs"):
        check_metrics(Limit.parse("1MiB"), ["flops"])


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [
        ("ok", "ok", False),
        ("ok", "oom", True),
        ("ok", "failed", True),
        ("ok", "unsupported", True),
        ("oom", "failed", True),
        ("failed", "ok", False),
        ("failed", "crashed", False),
        ("oom", "ok", False),
    ],
)
def test_a_cell_that_ends_worse_fails(before: str, after: str, fails: bool) -> None:
    found = difference(record([], status=before), record([], status=after))
    assert bool(failures([found], [], Limit.parse("1%"))) == fails


def test_a_figure_fails_if_it_grew_or_is_gone_and_not_if_it_is_new() -> None:
    def memory(**figures: int | None) -> Record:
        return record([], memory={"peak_allocated": 100, **figures})

    limit = Limit.parse("1%")

    def reasons(before: Record, after: Record) -> list[str]:
        return [one.metric for one in failures([difference(before, after)], [], limit)]

    assert reasons(memory(), memory(peak_reserved=500)) == []
    assert reasons(memory(peak_reserved=500), memory()) == ["peak_reserved"]
    assert reasons(memory(peak_reserved=500), memory(peak_reserved=506)) == ["peak_reserved"]
    assert reasons(memory(peak_reserved=500), memory(peak_reserved=505)) == []
    assert reasons(memory(peak_reserved=500), memory(peak_reserved=1)) == []


def test_a_cell_that_is_gone_fails_if_it_had_a_result() -> None:
    limit = Limit.parse("1%")
    assert failures([], [record([])], limit)
    assert not failures([], [record([], status="failed")], limit)
