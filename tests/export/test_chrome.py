"""Chrome traces by the format's own rules, with the record's bytes and times in them."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from traces import traces

from profiler.analysis import again
from profiler.export import chrome, clock
from profiler.record import Kernel, Record, Time
from profiler.trace import CATEGORIES, PHASES, Trace

Pairs = Callable[[str], tuple[Record, Trace]]
Event = dict[str, Any]


def document(record: Record, trace: Trace) -> dict[str, Any]:
    data = json.loads(chrome.render(record, trace))
    assert isinstance(data, dict)
    check_format(data["traceEvents"])
    return data


def check_format(events: list[Event]) -> None:
    """What the format asks of each kind of event, and that tracks are in the order of time."""
    last: dict[Any, float] = defaultdict(float)
    named = set()
    for event in events:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert math.isfinite(event["ts"])
        assert event["ts"] >= 0
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            named.add(event["tid"])
        elif event["ph"] == "X":
            assert event["tid"] in named
            assert event["dur"] >= 0
            # Complete events of one track follow each other.
            assert event["ts"] >= last[event["tid"]] - 1e-6
            last[event["tid"]] = event["ts"] + event["dur"]
        elif event["ph"] == "C":
            assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())
            assert event["ts"] >= last[event["name"]]
            last[event["name"]] = event["ts"]
        else:
            raise AssertionError(event["ph"])


def of(events: list[Event], category: str) -> list[Event]:
    return [event for event in events if event.get("cat") == category]


def levels_of(events: list[Event], name: str) -> list[int]:
    found = [one["args"]["bytes"] for one in events if one["ph"] == "C" and one["name"] == name]
    return [int(one) for one in found]


@pytest.fixture(params=["card", "expandable", "oom", "cpu"])
def case(request: pytest.FixtureRequest, pair: Pairs) -> tuple[Record, Trace, dict[str, Any]]:
    record, trace = pair(request.param)
    return record, trace, document(record, trace)


def test_counters_are_the_levels(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    record, trace, data = case
    level = again.levels(trace, record.spec)

    def changes(levels: Any) -> list[int]:
        return [
            value for place, value in enumerate(levels) if place == 0 or value != levels[place - 1]
        ]

    assert levels_of(data["traceEvents"], "allocated") == changes(level.allocated)
    if level.reserved is None:
        assert levels_of(data["traceEvents"], "reserved") == []
    else:
        assert levels_of(data["traceEvents"], "reserved") == changes(level.reserved)


def test_the_highest_counter_is_the_records_peak(
    case: tuple[Record, Trace, dict[str, Any]],
) -> None:
    record, _, data = case
    begin = next(one["ts"] for one in of(data["traceEvents"], "step") if one["name"] == "step 1")
    now: dict[str, int] = defaultdict(int)
    by_category, highest = 0, 0
    for event in data["traceEvents"]:
        if event["ph"] != "C":
            continue
        now[event["name"]] = event["args"]["bytes"]
        if event["ts"] >= begin and event["name"] == "allocated":
            highest = max(highest, now["allocated"])
            parts = sum(now[f"allocated: {category}"] for category in CATEGORIES)
            by_category = max(by_category, parts)
    assert highest == by_category == record.memory.peak_allocated
    if record.memory.peak_reserved is not None:
        assert max(levels_of(data["traceEvents"], "reserved")) == record.memory.peak_reserved


def test_it_says_what_it_is(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    record, _, data = case
    (process,) = [one for one in data["traceEvents"] if one["name"] == "process_name"]
    assert process["args"]["name"].startswith("simulated: ")
    assert data["otherData"]["source"] == "simulated"
    time = data["otherData"]["time"]
    assert time == (clock.PREDICTED if record.time is not None else clock.ORDER)
    assert f"(time {time.partition(':')[0]})" in process["args"]["name"]


def test_times_are_the_records(pair: Pairs) -> None:
    record, trace = pair("card")
    assert record.time is not None
    events = document(record, trace)["traceEvents"]
    (step,) = [one for one in of(events, "step") if one["name"] == "step 1"]
    assert step["dur"] / 1e6 == pytest.approx(record.time.step, abs=1e-8)
    for phase in PHASES:
        took = sum(
            one["dur"]
            for one in of(events, "phase")
            if one["name"] == phase and one["args"]["step"] == 1
        )
        assert took / 1e6 == pytest.approx(record.time.phases[phase], abs=1e-8)


def test_every_op_is_there_inside_its_phase(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    _, trace, data = case
    ops = [one for one in data["traceEvents"] if one["ph"] == "X" and "flops" in one["args"]]
    assert [(one["name"], one["args"]["flops"]) for one in ops] == [
        (op.name, op.flops) for op in trace.ops
    ]
    spans = of(data["traceEvents"], "phase")
    for one in ops:
        assert any(
            span["name"] == one["cat"]
            and span["args"]["step"] == one["args"]["step"]
            and span["ts"] <= one["ts"]
            and one["ts"] + one["dur"] <= span["ts"] + span["dur"] + 1e-6
            for span in spans
        )


def test_measured_times_are_divided_over_the_ops_of_their_kind(pair: Pairs) -> None:
    record, trace = pair("cpu")
    kinds = Counter((op.phase, op.name) for op in trace.ops if op.step == 1)
    # As on a GPU, where an op may launch several: each second is of two kernels.
    kernels = [
        Kernel(
            name=f"{name}{half}",
            op=name,
            phase=phase,
            count=kinds[phase, name],
            seconds=place * kinds[phase, name] / 2,
            flops=0,
            bytes=0,
        )
        for place, (phase, name) in enumerate(sorted(kinds), 1)
        for half in "ab"
    ]
    phases = {"forward": 0.25, "backward": 0.5, "optimizer": 0.125}
    time = Time(
        source="measured", step=0.875, phases=phases, tokens_per_second=1.0, kernels=kernels
    )
    spec = {**record.spec, "device": "cpu"}
    measured = record.model_copy(update={"source": "measured", "time": time, "spec": spec})
    data = document(measured, trace)
    assert data["otherData"]["time"] == clock.MEASURED
    for span in of(data["traceEvents"], "phase"):
        if span["name"] in phases and span["args"]["step"] == 1:
            assert span["dur"] / 1e6 == pytest.approx(phases[span["name"]], abs=1e-8)
    took = {
        (one["cat"], one["name"]): one["dur"]
        for one in data["traceEvents"]
        if one["ph"] == "X" and one["args"].get("step") == 1 and "flops" in one["args"]
    }
    of_kind = {kind: place for place, kind in enumerate(sorted(kinds), 1)}
    forward = [kind for kind in of_kind if kind[0] == "forward"]
    ratios = {round(took[kind] / of_kind[kind]) for kind in forward if took[kind] > 1000}
    assert ratios
    assert max(ratios) - min(ratios) <= 0.01 * max(ratios) + 1


def test_a_measured_run_has_its_measured_times(measured: tuple[Record, Trace]) -> None:
    record, trace = measured
    data = document(record, trace)
    (process,) = [one for one in data["traceEvents"] if one["name"] == "process_name"]
    assert process["args"]["name"].startswith("measured: ")
    assert data["otherData"]["time"] == clock.MEASURED
    ops = [one for one in data["traceEvents"] if one["ph"] == "X" and "flops" in one["args"]]
    assert len(ops) == len(trace.ops)
    assert record.time is not None
    phases = of(data["traceEvents"], "phase")
    took = {one["name"]: one["dur"] for one in phases if one["args"]["step"] == 1}
    for phase, seconds in record.time.phases.items():
        assert took[phase] / 1e6 == pytest.approx(seconds, rel=0.01)
    assert max(levels_of(data["traceEvents"], "allocated")) == record.memory.peak_allocated


def test_of_many_lengths_it_is_the_step_of_the_peak(lengths: tuple[Record, Trace]) -> None:
    record, trace = lengths
    data = document(record, trace)
    assert max(levels_of(data["traceEvents"], "allocated")) == record.memory.peak_allocated
    assert "the step of the peak" in data["otherData"]["steps"]
    assert data["otherData"]["time"] == (clock.PREDICTED if trace.ops else clock.ORDER)


@given(trace=traces())
def test_any_trace_keeps_to_the_format(trace: Trace) -> None:
    record = Record(id="x", status="ok", source="simulated", spec={"device": "sim:cpu"})
    events = document(record, trace)["traceEvents"]
    ops = [one for one in events if one["ph"] == "X" and "flops" in one["args"]]
    assert len(ops) == len(trace.ops)
    level = again.levels(trace, record.spec)
    assert levels_of(events, "allocated")[-1] == level.allocated[-1]
