"""Runs of random steps: put together, they are the long trace, whatever the settings."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_runs import CONFS, Long, block, runs

from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.allocator import replay
from profiler.analysis.history import HistoryLevels, StepHistory, StepKind, StepTrace, levels
from profiler.analysis.out_of_memory import of_history
from profiler.lengths import Batch

MIB = 1 << 20


def check(level: HistoryLevels, history: StepHistory, long: Long, conf: AllocConf) -> None:
    whole = replay(long.sizes, long.events, conf=conf)
    start = len(history.events)
    phases = dict.fromkeys(("forward", "backward"), 0)
    for number, end in enumerate(long.ends):
        window = range(max(start - 1, 0), end)
        allocated = [whole.allocated[at] for at in window]
        if start == 0:
            allocated.insert(0, 0)
        reserved = [whole.reserved[at] for at in range(start, end)]
        assert level.peak[number] == max(allocated)
        assert level.after[number] == allocated[-1]
        assert level.reserved[number] == max(reserved)
        assert level.reserved_after[number] == reserved[-1]
        marks = history.steps[history.order[number]].kind.marks
        inner = [*(event for event, _ in marks), end - start]
        for (_, phase), one, other in zip(marks, inner, inner[1:], strict=False):
            part = allocated[one : other + 1]
            phases[phase] = max(phases[phase], *part)
        start = end
        every = history.empty_cache_every
        if every and (number + 1) % every == 0:
            start += 1
    assert level.phases == phases


@settings(max_examples=150, deadline=None)
@given(runs(), st.sampled_from(CONFS).map(AllocConf.parse))
def test_a_run_is_its_long_trace(run: tuple[StepHistory, Long], conf: AllocConf) -> None:
    history, long = run
    level = levels(history, conf, None)
    assert level.oom is None
    check(level, history, long, conf)
    peak = level.peak_step
    assert peak is not None
    assert max(peak.allocated_before, *peak.allocated) == max(level.peak)
    assert level.peak.index(max(level.peak)) == peak.number - 1
    assert peak.reserved is not None
    assert max(peak.reserved) == level.reserved[peak.number - 1]


@settings(max_examples=150, deadline=None)
@given(runs(), st.sampled_from(CONFS).map(AllocConf.parse), st.floats(0.2, 1.05))
def test_memory_ends_where_it_ends_in_the_long_trace(
    run: tuple[StepHistory, Long], conf: AllocConf, share: float
) -> None:
    history, long = run
    most = max(replay(long.sizes, long.events, conf=conf).reserved, default=0)
    capacity = int(most * share)
    level = levels(history, conf, capacity)
    whole = replay(long.sizes, long.events, conf=conf, capacity=capacity)
    assert (level.oom is None) == (whole.oom is None)
    if whole.oom is None or level.oom is None:
        if whole.oom is None:  # cached segments may have been given back on the way
            start = len(history.events)
            for number, end in enumerate(long.ends):
                assert level.reserved[number] == max(whole.reserved[start:end])
                start = end + (long.events[end : end + 1] == array("q", [0]))
        return
    starts = [0, *(end + (long.events[end] == 0) for end in long.ends[:-1])]
    begin = len(history.events) if level.oom_step == 1 else starts[max(level.oom_step - 1, 0)]
    assert level.oom.event + (begin if level.oom_step else 0) == whole.oom.event
    assert {**vars(level.oom), "event": 0} == {**vars(whole.oom), "event": 0}
    check(level, history, long, conf)  # as on a card that is large enough


def fragmented() -> StepHistory:
    """Two steps: the second wants in one piece what the first left in two, with a block between."""
    first = StepKind(0, array("q", [1, 2, 3, -1, -3, 4]), (), (1, 3), ((0, "forward"),))
    second = StepKind(2, array("q", [3, -1, -2, -3]), (), (), ((0, "backward"),))
    sizes = [40 * MIB, 40 * MIB, 40 * MIB, 2 * MIB]
    return StepHistory(
        cuda=True,
        blocks=[],
        events=array("q"),
        steps=[
            StepTrace(first, sizes, lambda: [block(size) for size in sizes]),
            StepTrace(second, [100 * MIB], lambda: [block(100 * MIB)]),
        ],
        order=[0, 1],
    )


@pytest.mark.parametrize(
    ("capacity", "words"),
    [
        (160 * MIB, "; with expandable_segments:True it fits (peak reserved 0.16 GiB)"),
        (120 * MIB, "; also with expandable_segments:True"),
    ],
)
def test_an_end_of_memory_names_the_step_and_what_would_have_helped(
    capacity: int, words: str
) -> None:
    history = fragmented()
    level = levels(history, AllocConf(), capacity)
    batches = (Batch((300, 200)), Batch((742, 10, 742, 3)))
    text = of_history(history, level, batches, AllocConf(), capacity, needed=1 << 30)
    assert text.startswith(
        "out of memory at step 2 (batch of 4 x 742 tokens) in the backward at aten.mm in layers.0: "
    )
    assert text.endswith(words)
    grown = AllocConf(expandable_segments=True)
    assert "expandable" not in of_history(history, level, batches, grown, capacity, needed=1 << 30)
