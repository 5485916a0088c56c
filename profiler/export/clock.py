"""When each op and each event of a trace is, as far as the record tells."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from profiler.analysis import again, step_time
from profiler.record import Record
from profiler.trace import PHASES, Mark, Op, Trace

#: Nanoseconds of what has no time: an op without one, an event where no ops are.
UNIT = 1000

PREDICTED = "predicted: each op on its card, from the end of the one before, waiting included"
MEASURED = (
    "measured: the median time of each phase, divided over its ops as torch.profiler saw their "
    "kinds in it"
)
ORDER = "none is known: ops in their order, or events where no ops are, a microsecond each"


@dataclass(frozen=True, slots=True)
class Span:
    """A phase of a step: events `first` to `end` (excluded), its ops, and its time in ns.

    `ops` holds (op, start, end); `times` one time for each event, in order.
    """

    phase: str
    step: int
    first: int
    end: int
    start: int
    stop: int
    ops: list[tuple[Op, int, int]]
    times: list[int]


def spans(trace: Trace, seconds: list[float]) -> Iterator[Span]:
    """The trace's phases one after another, what stands before the first mark included.

    What an op allocates and frees is spread over its time; what is freed after a phase's last op
    is at the phase's end. A phase without ops (what is there before the steps) takes a unit for
    each event, and stands for its order alone.

    Args:
        seconds: of each op of the trace.
    """
    marks = [*trace.marks]
    if not marks or marks[-1].phase != "end":
        marks.append(Mark(len(trace.events), "end", 0))
    if marks[0].event > 0:
        marks.insert(0, Mark(0, "setup", 0))
    now = 0.0
    number = 0
    for place, (mark, after) in enumerate(itertools.pairwise(marks)):
        later = {(one.phase, one.step) for one in marks[place + 1 :] if one.event == after.event}
        start = round(now)
        ops: list[tuple[Op, int, int]] = []
        times: list[int] = []
        event = mark.event
        while number < len(trace.ops):
            op = trace.ops[number]
            # At the border itself the phase decides; what belongs to none (a bench's own ops
            # between two steps) stays on this side.
            if op.event > after.event or (op.event == after.event and (op.phase, op.step) in later):
                break
            begin = now
            now += seconds[number] * 1e9
            ops.append((op, round(begin), round(now)))
            count = max(op.event - event, 0)
            times += [
                round(begin + (now - begin) * place / (count + 1)) for place in range(1, count + 1)
            ]
            event += count
            number += 1
        rest = after.event - event
        unit = 0 if ops else UNIT
        times += [round(now + unit * place) for place in range(rest)]
        now += unit * rest
        yield Span(mark.phase, mark.step, mark.event, after.event, start, round(now), ops, times)


def durations(record: Record, trace: Trace) -> tuple[list[float], str]:
    """Seconds of each op of the trace, and what they are.

    Raises:
        UsageError: the record's GPU is none that this version knows.
    """
    if not trace.ops:
        return [], ORDER
    time = record.time
    device = again.simulated_device(record.spec)
    if time is not None and device is not None:
        return step_time.spans(trace.ops, device), PREDICTED
    if time is not None and time.source == "measured" and time.kernels:
        return _measured(record, trace), MEASURED
    return [UNIT / 1e9] * len(trace.ops), ORDER


def _measured(record: Record, trace: Trace) -> list[float]:
    """The mean of an op's kind in its phase, scaled so that the phase takes what it took bare."""
    assert record.time is not None
    kinds: dict[tuple[str, str], float] = {}
    for kernel in record.time.kernels:  # a GPU's: several of an op
        kind = (kernel.phase, kernel.op)
        kinds[kind] = kinds.get(kind, 0.0) + kernel.seconds
    often = Counter((op.phase, op.name) for op in trace.ops if op.step == 1)
    kinds = {kind: seconds / often[kind] for kind, seconds in kinds.items() if often[kind]}
    plain = [kinds.get((op.phase, op.name), 0.0) for op in trace.ops]
    sums: dict[tuple[str, int], float] = {}
    for op, seconds in zip(trace.ops, plain, strict=True):
        sums[op.phase, op.step] = sums.get((op.phase, op.step), 0.0) + seconds
    counts: dict[tuple[str, int], int] = {}
    for op in trace.ops:
        counts[op.phase, op.step] = counts.get((op.phase, op.step), 0) + 1
    result = []
    for op, seconds in zip(trace.ops, plain, strict=True):
        key = (op.phase, op.step)
        whole = record.time.phases.get(op.phase, 0.0) if op.phase in PHASES else sums[key]
        # Where no kernel has an op's name the phase is divided evenly.
        share = seconds / sums[key] if sums[key] else 1 / counts[key]
        result.append(whole * share)
    return result
