"""Memory of the measured steps: peaks, what holds them, per module, over time."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.allocator import OutOfMemory, replay
from profiler.analysis.module_paths import alike
from profiler.record import Holder, Holders, LoadMemory, Memory, Timeline
from profiler.trace import CATEGORIES, PHASES, Trace

#: Points that a stored timeline has at most (the contract allows 2,000).
MOST_POINTS = 600

#: Blocks that are named at the peak.
MOST_HOLDERS = 20

#: Groups of alike blocks that are named at the peak; beside them one for the rest of each category.
MOST_GROUPS = 80

#: Columns of `Memory.modules`, and the categories that each sums.
MODULE_COLUMNS = {
    "parameters": ("base_parameters", "adapter_parameters"),
    "gradients": ("gradients",),
    "optimizer_state": ("optimizer_state",),
    "activations": ("activations",),
}


@dataclass(frozen=True, slots=True)
class Levels:
    """A trace's bytes: `allocated` and `reserved` after each event, `sizes` of each block.

    On a CPU a block is as large as its storage, and nothing is reserved.
    """

    allocated: Sequence[int]
    reserved: Sequence[int] | None
    sizes: Sequence[int]
    oom: OutOfMemory | None


def levels(trace: Trace, conf: AllocConf, capacity: int | None) -> Levels:
    """Replay a trace through the device's allocator.

    Where `capacity` does not hold it, the levels are those of a card that is large enough, and
    `oom` says where it would have ended.
    """
    requested = [block.nbytes for block in trace.blocks]
    if not trace.cuda:
        steps = (
            requested[event - 1] if event > 0 else -requested[-event - 1] if event else 0
            for event in trace.events
        )
        return Levels(array("q", accumulate(steps)), None, requested, None)
    replayed = replay(requested, trace.events, conf=conf, capacity=capacity)
    oom = replayed.oom
    if oom is not None:
        replayed = replay(requested, trace.events, conf=conf)
    return Levels(replayed.allocated, replayed.reserved, replayed.block_bytes, oom)


def spans(trace: Trace) -> Iterator[tuple[str, int, int, int]]:
    """(phase, step, first event, end) of each stretch between two marks, the steps' alone."""
    for mark, after in zip(trace.marks, trace.marks[1:], strict=False):
        if mark.phase in PHASES:
            yield mark.phase, mark.step, mark.event, after.event


def analyse(trace: Trace, level: Levels) -> Memory:
    """The `memory` of a record, from the measured steps (all but the warm-up, step 0)."""
    allocated = level.allocated
    phases = dict.fromkeys(PHASES, 0)
    peak, at = -1, 0
    window: list[tuple[str, int, int]] = []
    for phase, step, start, end in spans(trace):
        if step == 0:
            continue
        window.append((phase, start, end))
        # A phase begins at the level that the event before it left.
        for index in range(max(start - 1, 0), end):
            if allocated[index] > phases[phase]:
                phases[phase] = allocated[index]
            if allocated[index] > peak:
                peak, at = allocated[index], index
    end = window[-1][2]
    first = window[0][1]
    alive = _alive(trace, at)
    at_peak = dict.fromkeys(CATEGORIES, 0)
    for block in alive:
        at_peak[trace.blocks[block].category] += level.sizes[block]
    reserved = level.reserved
    load = load_of(trace, level)
    return Memory(
        peak_allocated=peak,
        load_peak=load.peak_allocated if load is not None else None,
        load=load,
        after_step_allocated=allocated[end - 1],
        peak_reserved=max(reserved[max(first - 1, 0) : end]) if reserved is not None else None,
        phases=phases,
        at_peak=at_peak,
        outside_allocator=dict(trace.outside),
        largest_at_peak=_largest(trace, level, alive),
        holders=_groups(trace, level, alive),
        modules=_modules(trace, level, alive),
        timeline=_timeline(trace, level, window, at),
    )


def load_of(trace: Trace, level: Levels) -> LoadMemory | None:
    """What the events of loading come to; None for a trace that begins after it."""
    end = next(
        (
            after.event
            for mark, after in zip(trace.marks, trace.marks[1:], strict=False)
            if mark.phase == "load"
        ),
        0,
    )
    if not end or level.reserved is None:
        return None
    at = max(range(end), key=level.allocated.__getitem__)
    at_peak = dict.fromkeys(CATEGORIES, 0)
    for block in _alive(trace, at):
        at_peak[trace.blocks[block].category] += level.sizes[block]
    return LoadMemory(
        peak_allocated=level.allocated[at],
        peak_reserved=max(level.reserved[:end]),
        after_allocated=level.allocated[end - 1],
        after_reserved=level.reserved[end - 1],
        at_peak={category: held for category, held in at_peak.items() if held},
    )


def _alive(trace: Trace, at: int) -> list[int]:
    """Blocks that are allocated after event number `at`."""
    alive: dict[int, None] = {}
    for event in trace.events[: at + 1]:
        if event > 0:
            alive[event - 1] = None
        elif event < 0:
            del alive[-event - 1]
    return list(alive)


def _largest(trace: Trace, level: Levels, alive: list[int]) -> list[Holder]:
    ordered = sorted(alive, key=lambda block: (-level.sizes[block], block))
    return [
        Holder(
            bytes=level.sizes[number],
            category=trace.blocks[number].category,
            op=trace.blocks[number].op,
            module=trace.blocks[number].module,
            shape=list(trace.blocks[number].shape),
            dtype=trace.blocks[number].dtype,
            phase=trace.blocks[number].phase,
            source=trace.blocks[number].source,
        )
        for number in ordered[:MOST_HOLDERS]
    ]


def _groups(trace: Trace, level: Levels, alive: list[int]) -> list[Holders]:
    """Everything that is alive, alike blocks together, the largest groups first."""
    groups: dict[tuple[object, ...], Holders] = {}
    paths: dict[str, str] = {}
    for number in alive:
        block = trace.blocks[number]
        module = paths.get(block.module)
        if module is None:
            module = paths[block.module] = alike(block.module)
        key = (block.category, block.op, module, block.source, block.shape, block.dtype)
        group = groups.get(key)
        if group is None:
            group = groups[key] = Holders(
                category=block.category,
                op=block.op,
                module=module,
                source=block.source,
                shape=list(block.shape),
                dtype=block.dtype,
                count=0,
                bytes=0,
            )
        group.count += 1
        group.bytes += level.sizes[number]
    ordered = sorted(groups.values(), key=lambda group: -group.bytes)
    rest: dict[str, Holders] = {}
    for group in ordered[MOST_GROUPS:]:
        left = rest.setdefault(
            group.category, Holders(category=group.category, op="", module="", count=0, bytes=0)
        )
        left.count += group.count
        left.bytes += group.bytes
    return ordered[:MOST_GROUPS] + sorted(rest.values(), key=lambda group: -group.bytes)


def _modules(trace: Trace, level: Levels, alive: list[int]) -> dict[str, dict[str, int]]:
    columns = {category: column for column, summed in MODULE_COLUMNS.items() for category in summed}
    modules: dict[str, dict[str, int]] = {}
    for number in alive:
        block = trace.blocks[number]
        column = columns.get(block.category)
        if column is not None:
            row = modules.setdefault(block.module, dict.fromkeys(MODULE_COLUMNS, 0))
            row[column] += level.sizes[number]
    return dict(sorted(modules.items()))


def _timeline(trace: Trace, level: Levels, window: list[tuple[str, int, int]], at: int) -> Timeline:
    """The first measured step, thinned; in each stretch the highest point stays."""
    one_step = window[: _first_step_length(window)]
    start, end = one_step[0][1], one_step[-1][2]
    if not start <= at < end:  # the peak is in a later step that does otherwise
        one_step = window
        end = one_step[-1][2]
    stride = max(1, -(-(end - start) // (MOST_POINTS - 1)))
    keep = [
        max(range(index, min(index + stride, end)), key=level.allocated.__getitem__)
        for index in range(start, end, stride)
    ]
    if at in range(start, end) and at not in keep:
        keep = sorted({*keep, at})
    starts = [begin for _, begin, _ in one_step]
    phase_of: list[str] = []
    position = 0
    for index in keep:
        while position + 1 < len(starts) and starts[position + 1] <= index:
            position += 1
        phase_of.append(one_step[position][0])
    series: dict[str, list[int]] = {category: [] for category in CATEGORIES}
    current = dict.fromkeys(CATEGORIES, 0)
    wanted = iter(chain(keep, [-1]))
    following = next(wanted)
    for index, event in enumerate(trace.events):
        if event:
            block = abs(event) - 1
            size = level.sizes[block]
            current[trace.blocks[block].category] += size if event > 0 else -size
        if index == following:
            for category in CATEGORIES:
                series[category].append(current[category])
            following = next(wanted)
            if following < 0:
                break
    reserved = level.reserved
    return Timeline(
        event=keep,
        phase=phase_of,
        allocated={name: values for name, values in series.items() if any(values)},
        reserved=[reserved[index] for index in keep] if reserved is not None else None,
    )


def _first_step_length(window: list[tuple[str, int, int]]) -> int:
    """Number of stretches up to the first optimizer phase, included."""
    return next(
        (number for number, (phase, _, _) in enumerate(window, 1) if phase == "optimizer"),
        len(window),
    )
