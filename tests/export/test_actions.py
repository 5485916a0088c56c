"""The history of a trace's allocations holds the same bytes as its levels, at addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from traces import small, traces

from profiler.analysis import memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.export.actions import Action, History, history
from profiler.trace import Trace

CONFS = st.sampled_from(
    (
        "",
        "expandable_segments:True",
        "max_split_size_mb:21",
        "roundup_power2_divisions:4",
        "expandable_segments:True,large_segment_size_mb:40",
    )
)
CAPACITIES = st.one_of(st.none(), st.integers(1, 200).map(lambda size: size << 21))


class Device:
    """Memory as the actions leave it: no segment and no block may overlap another."""

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}  # address and size of each free or used range taken
        self.blocks: dict[int, int] = {}

    def apply(self, action: Action) -> None:
        start, end = action.address, action.address + action.size
        if action.kind in ("segment_alloc", "segment_map"):
            assert all(end <= at or at + size <= start for at, size in self.pages.items())
            self.pages[start] = action.size
            self._join()
        elif action.kind in ("segment_free", "segment_unmap"):
            assert all(end <= at or at + size <= start for at, size in self.blocks.items())
            self._cut(start, end)
        elif action.kind == "alloc":
            assert any(at <= start and end <= at + size for at, size in self.pages.items())
            assert all(end <= at or at + size <= start for at, size in self.blocks.items())
            self.blocks[start] = action.size
        elif action.kind == "free":
            assert self.blocks.pop(start) == action.size
        else:
            assert action.kind == "oom"

    def _join(self) -> None:
        joined: dict[int, int] = {}
        for at, size in sorted(self.pages.items()):
            last = max(joined, default=None)
            if last is not None and last + joined[last] == at:
                joined[last] += size
            else:
                joined[at] = size
        self.pages = joined

    def _cut(self, start: int, end: int) -> None:
        ((at, size),) = [
            (at, size) for at, size in self.pages.items() if at <= start and end <= at + size
        ]
        del self.pages[at]
        if at < start:
            self.pages[at] = start - at
        if end < at + size:
            self.pages[end] = at + size - end


def check(made: History, trace: Trace, level: memory.Levels) -> None:
    device = Device()
    actions = iter([*made.actions, None])
    action = next(actions)
    for place in range(len(trace.events)):
        while action is not None and action.event <= place:
            device.apply(action)
            action = next(actions)
        assert sum(device.blocks.values()) == level.allocated[place]
        if level.reserved is not None:
            assert sum(device.pages.values()) == level.reserved[place]
    assert action is None
    assert {at: device.blocks[at] for at in made.held} == device.blocks
    used = {}
    for segment in made.segments:
        address = segment.address
        for block in segment.blocks:
            assert block.address == address
            address += block.size
            if block.allocated:
                used[block.address] = block.size
        assert address == segment.address + segment.size
    assert used == device.blocks
    assert sum(segment.size for segment in made.segments) == sum(device.pages.values())


@given(trace=traces(), conf=CONFS, capacity=CAPACITIES)
def test_the_history_is_that_of_the_levels(trace: Trace, conf: str, capacity: int | None) -> None:
    parsed = AllocConf.parse(conf)
    level = memory.levels(trace, parsed, capacity)
    made = history(trace, parsed, capacity)
    check(made, trace, level)
    ooms = [action for action in made.actions if action.kind == "oom"]
    assert [(one.event, one.size) for one in ooms] == (
        [(level.oom.event, level.oom.requested)] if level.oom is not None else []
    )


def test_emptying_the_cache_gives_segments_back() -> None:
    trace = small()
    trace.events.extend([-1, 0])
    trace.marks[-1].event = len(trace.events)
    made = history(trace, AllocConf(), None)
    assert [action.kind for action in made.actions] == [
        "segment_alloc", "alloc", "alloc", "free", "free", "segment_free",
    ]  # fmt: skip
    assert made.segments == []
    assert made.held == {}
