"""A run's levels as the parts of a record."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate

from profiler.analysis import memory
from profiler.analysis.history import HistoryLevels, PeakStep, StepHistory
from profiler.analysis.memory import Levels
from profiler.lengths import Batch
from profiler.record import Flops, History, HistorySeries, Memory
from profiler.trace import Block, Mark, Op, Trace

#: Points that a stored history has at most.
MOST_POINTS = 1_000


def peak_trace(run: StepHistory, peak: PeakStep) -> tuple[Trace, Levels]:
    """The peak's step alone, as step 1 of a trace that begins with what was alive before it."""
    own = run.steps[run.order[peak.number - 1]]
    described: dict[int, list[Block]] = {-1: run.blocks}
    for index in {index for index, _ in peak.origins} - {-1}:
        described[index] = run.steps[index].describe()
    blocks = [described[index][block] for index, block in peak.origins] + own.describe()
    before = own.kind.before
    events = array("q", range(1, before + 1))
    events.extend(own.kind.events)
    trace = Trace(cuda=run.cuda, source="simulated", blocks=blocks, events=events)
    trace.marks = [Mark(0, "setup", 0)]
    trace.marks += [Mark(before + event, phase, 1) for event, phase in own.kind.marks]
    trace.marks.append(Mark(len(events), "end", 1))
    reserved = None
    if peak.reserved is not None:
        reserved = [peak.reserved_before] * before + peak.reserved
    standing = list(accumulate(peak.sizes[:before]))
    return trace, Levels(standing + peak.allocated, reserved, peak.sizes, None)


def analyse(
    run: StepHistory,
    level: HistoryLevels,
    batches: Sequence[Batch],
    before: Trace,
    *,
    simulated: int,
    shapes: int,
) -> tuple[Memory, Trace]:
    """The `memory` of a record, and the trace of the peak's step.

    Peaks and phases are the largest of all steps; what stands at the peak, the modules and the
    timeline are of the first step that reaches the peak.

    Args:
        before: the trace of what comes before the first step.
        simulated, shapes: shapes that were simulated, and all that the run has.
    """
    peak = level.peak_step
    assert peak is not None
    trace, levels = peak_trace(run, peak)
    result = memory.analyse(trace, levels)
    result.phases = {**result.phases, **level.phases}
    result.after_step_allocated = level.after[-1]
    result.peak_reserved = max(level.reserved) if run.cuda else None
    assert level.before is not None
    result.load = memory.load_of(before, level.before)
    result.load_peak = result.load.peak_allocated if result.load is not None else None
    result.history = _history(level, batches, peak, simulated=simulated, shapes=shapes)
    return result, trace


def _history(
    level: HistoryLevels,
    batches: Sequence[Batch],
    peak: PeakStep,
    *,
    simulated: int,
    shapes: int,
) -> History:
    count = len(level.peak)
    reserved = level.reserved or None
    longest = 0
    if reserved is not None:
        longest = max(range(count), key=lambda step: (reserved[step], -step))
    stride = max(1, -(-count // (MOST_POINTS - 2)))
    highest = reserved or level.peak
    keep = {
        max(range(start, min(start + stride, count)), key=lambda step: (highest[step], -step))
        for start in range(0, count, stride)
    }
    points = sorted(keep | {peak.number - 1, longest})
    shape = batches[peak.number - 1].shape
    return History(
        steps=count,
        peak_step=peak.number,
        peak_batch=shape.size,
        peak_length=shape.length,
        reserved_max_step=longest + 1 if reserved is not None else None,
        reserved_mean=sum(level.reserved_after) / count if reserved is not None else None,
        after_step_mean=sum(level.after) / count,
        distinct_shapes=shapes,
        simulated_shapes=simulated,
        series=HistorySeries(
            step=[step + 1 for step in points],
            batch=[batches[step].shape.size for step in points],
            length=[batches[step].shape.length for step in points],
            peak_allocated=[level.peak[step] for step in points],
            after_step_allocated=[level.after[step] for step in points],
            peak_reserved=None if reserved is None else [reserved[step] for step in points],
            after_step_reserved=(
                None if reserved is None else [level.reserved_after[step] for step in points]
            ),
        ),
    )


def mean_flops(runs: Iterable[tuple[list[tuple[Op, int]], int]], steps: int) -> Flops:
    """FLOPs of all steps over their number, rounded down by phase.

    Args:
        runs: the ops of each distinct step, alike ones together with their number, and how often
            the step is run.
    """
    totals = {"forward": 0, "backward": 0, "recompute": 0, "optimizer": 0}
    for ops, times in runs:
        for op, count in ops:
            totals["recompute" if op.recompute else op.phase] += op.flops * count * times
    phases = {phase: total // steps for phase, total in totals.items()}
    return Flops(total=sum(phases.values()), phases=phases)
