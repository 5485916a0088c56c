"""Where memory ran out, in words, and what expandable segments would have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from profiler.analysis import history as runs
from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.allocator import OutOfMemory, replay
from profiler.analysis.history import HistoryLevels, StepHistory
from profiler.analysis.memory import Levels
from profiler.lengths import Batch
from profiler.trace import Block, Trace


def of_trace(
    trace: Trace, level: Levels, conf: AllocConf, capacity: int | None, needed: int
) -> str:
    """The error of a trace that did not fit. `needed`: bytes of the device in all."""
    oom = level.oom
    assert oom is not None
    block = trace.blocks[trace.events[oom.event] - 1]
    sizes = [one.nbytes for one in trace.blocks]

    def again(other: AllocConf) -> int | None:
        result = replay(sizes, trace.events, conf=other, capacity=capacity)
        return None if result.oom is not None else max(result.reserved)

    return _sentence(oom, block, "", f"the step needs {_gib(needed)} in all", conf, again)


def of_history(
    run: StepHistory,
    level: HistoryLevels,
    batches: tuple[Batch, ...],
    conf: AllocConf,
    capacity: int | None,
    needed: int,
) -> str:
    """The error of a run that did not fit, with its step and the length of its batch."""
    oom = level.oom
    assert oom is not None
    if level.oom_step:
        step = run.steps[run.order[level.oom_step - 1]]
        number = step.kind.events[oom.event] - 1 - step.kind.before
        block = step.describe()[number]
        shape = batches[level.oom_step - 1].shape
        where = f" at step {level.oom_step} (batch of {shape.size} x {shape.length} tokens)"
    else:
        block = run.blocks[run.events[oom.event] - 1]
        where = " before the first step"

    def again(other: AllocConf) -> int | None:
        result = runs.levels(run, other, capacity, only_if_it_fits=True)
        return None if result.oom is not None else max(result.reserved)

    return _sentence(oom, block, where, f"the run needs {_gib(needed)} in all", conf, again)


def _sentence(
    oom: OutOfMemory,
    block: Block,
    where: str,
    need: str,
    conf: AllocConf,
    again: Callable[[AllocConf], int | None],
) -> str:
    """`again` replays with other settings: the most reserved, None where it does not fit."""
    return (
        f"out of memory{where} in the {block.phase} at {block.op}"
        f"{' in ' + block.module if block.module else ''}: {_gib(oom.requested)} more "
        f"with {_gib(oom.allocated)} allocated of {_gib(oom.capacity)}; {need}"
        f"{_expandable(conf, again)}"
    )


def _expandable(conf: AllocConf, again: Callable[[AllocConf], int | None]) -> str:
    if conf.expandable_segments:
        return ""
    reserved = again(replace(conf, expandable_segments=True))
    if reserved is None:
        return "; also with expandable_segments:True"
    return f"; with expandable_segments:True it fits (peak reserved {_gib(reserved)})"


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB"
