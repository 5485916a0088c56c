"""Predicted step times of published runs: some that no constant was fitted to, simulated here."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from profiler import lengths
from profiler.analysis.history_time import between
from profiler.execute import run
from profiler.validation import cases
from profiler.validation.cases import published

GROUP = cases.group("peft-metamathqa")
#: Lengths that are simulated; the others' times are between them.
LENGTHS = (110, 210, 450)


@pytest.mark.parametrize(
    "id",
    [
        "ln_tuning--llama-3.2-3B-default",
        pytest.param("lora--llama-3.2-3B-rank32-dora", marks=pytest.mark.whole_grid),
        pytest.param("miss--llama-3.2-3B-default", marks=pytest.mark.whole_grid),
    ],
)
def test_a_published_step_time_is_within_its_bound(id: str) -> None:
    case = GROUP.case(id)
    (step, history) = GROUP.runs
    (measure,) = [one for one in history.measures if one.metric == "time.step"]
    assert id not in measure.fitted
    batches = lengths.load(GROUP.spec_of(case, history)).batches
    spec = GROUP.spec_of(case, step)
    seconds = {}
    for length in LENGTHS:
        record = run(replace(spec, seq_len=length))
        assert record.time is not None
        seconds[length] = record.time.step
    weights: Counter[int] = Counter()
    for batch in batches:
        for length, share in between(batch.shape.length, {one: one for one in LENGTHS}).items():
            weights[length] += share  # type: ignore[assignment]
    predicted = sum(seconds[length] * weight for length, weight in weights.items()) / len(batches)
    measured = published(case, measure)
    assert measured is not None
    assert measure.bound == 0.12
    assert predicted == pytest.approx(measured, rel=measure.bound)


def test_only_eight_step_times_are_fitted() -> None:
    fitted = [name for run in GROUP.runs for one in run.measures for name in one.fitted]
    assert len(fitted) == 8
    assert {GROUP.case(name).id for name in fitted} == set(fitted)
