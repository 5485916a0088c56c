"""Kernels of one step, from `torch.profiler`: by phase, and their time by module.

The profiler sees a tree of calls. A kernel is the outermost call in it that the trace of the same
step has as an op, with all that it calls; what stands around (Python, autograd, dispatching, views)
is in no kernel. On a CUDA device kernels are the device's own, under the op that launched them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from profiler.record import Kernel, Time
from profiler.subject.workloads.train import TrainStep, Unwatched
from profiler.trace import PHASES, Op, Trace

_MARK = "profiler.phase."
_END = "end"

#: How far calls and ops may part, and how many must agree for them to go on together.
_REACH = 16
_AGREEING = 3


@dataclass
class Profile:
    """What one step under the profiler took.

    Attributes:
        kernels: by phase, op and kernel, longest first; on a CPU a kernel is its op.
        modules: seconds of the kernels of each module's own ops (path, then phase).
        phases: seconds of the phases on the host's clock, the profiler's own work included.
    """

    kernels: list[Kernel] = field(default_factory=list)
    modules: dict[str, dict[str, float]] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)


class _PhaseMarks(Unwatched):
    """Puts each phase's start into the profile."""

    def phase(self, name: str) -> None:
        with torch.profiler.record_function(_MARK + name):
            pass


def profile(step: TrainStep, trace: Trace, device: str) -> Profile:
    """Run one step under the profiler.

    Args:
        trace: of the same step; its first measured step says what ops did and for which module.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as result:
        marks = _PhaseMarks()
        step(marks)
        if device == "cuda":
            torch.cuda.synchronize()
        marks.phase(_END)
    ops = [op for op in trace.ops if op.step == 1]
    return attribute(list(result.events() or []), ops, on_device=device == "cuda")


def attribute(events: Sequence[Any], ops: Iterable[Op], *, on_device: bool) -> Profile:
    """Kernels, modules and phases of the profiler's events.

    Calls and the trace's ops are walked side by side. A call that the trace has not (checkpointing
    stops its recomputation by an exception, in the midst of a call) has no FLOPs, bytes or module.

    Args:
        events: `torch.autograd.profiler_util.FunctionEvent`s of the host, as a tree.
        on_device: take the device's kernels, not the calls' own time.
    """
    host = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    spans = _spans(host)
    order: dict[str, list[Op]] = {}
    for op in ops:
        order.setdefault(op.phase, []).append(op)
    names = {phase: {op.name for op in row} for phase, row in order.items()}
    result = Profile(phases=dict.fromkeys(PHASES, 0.0))
    for phase, start, end in spans:
        result.phases[phase] += (end - start) / 1e6
    calls: dict[str, list[tuple[Any, bool]]] = {}
    for event in sorted(host, key=lambda event: event.time_range.start):
        if event.cpu_parent is None and not event.name.startswith(_MARK):
            phase = _phase_at(spans, event.time_range.start)
            calls.setdefault(phase, []).extend(_calls(event, names.get(phase, set())))
    table: dict[tuple[str, str, str], Kernel] = {}
    for phase, row in calls.items():
        outermost = [call for call, whole in row if whole]
        paired = iter(_paired(outermost, order.get(phase, [])))
        for call, whole in row:
            did = next(paired) if whole else None
            if on_device:
                launched = list(_launched(call, whole))
            else:
                launched = [(call.name, call.cpu_time_total / 1e6)] if whole else []
            _add(table, result.modules, phase, call, did, launched)
    result.kernels = sorted(table.values(), key=lambda kernel: -kernel.seconds)
    return result


def _calls(event: Any, names: set[str]) -> Iterator[tuple[Any, bool]]:
    """The outermost calls under an event that are ops of the trace, and the calls around them;
    which it is."""
    stack = [event]
    while stack:
        call = stack.pop()
        # Gradients are added in place, which under a dispatch mode is asked for otherwise.
        if _op_name(call) in names or _op_name(call).removesuffix("_") in names:
            yield call, True
        else:
            yield call, False
            stack.extend(reversed(call.cpu_children))


def _paired(calls: Sequence[Any], ops: Sequence[Op]) -> list[Op | None]:
    """The op of each call, in order. Where they part, as few calls or ops as may be are passed by
    until the next few agree."""
    names, theirs = [_op_name(call) for call in calls], [op.name for op in ops]
    result: list[Op | None] = []
    place = 0
    while len(result) < len(calls):
        at = len(result)
        skip_calls, skip_ops = _parting(names, theirs, at, place)
        result.extend([None] * skip_calls)
        place += skip_ops
        if len(result) < len(calls):
            result.append(ops[place] if place < len(ops) else None)
            place += 1
    return result


def _parting(names: list[str], theirs: list[str], at: int, place: int) -> tuple[int, int]:
    """How many calls from `at` and how many ops from `place` to pass by."""
    if place < len(theirs) and _same(names[at], theirs[place]):
        return 0, 0
    for passed in range(1, _REACH):
        for calls in range(passed + 1):
            one = names[at + calls : at + calls + _AGREEING]
            begin = place + passed - calls
            other = theirs[begin : begin + _AGREEING]
            if one and len(one) == len(other) and all(map(_same, one, other)):
                return calls, passed - calls
    return 1, 0


def _same(call: str, op: str) -> bool:
    return call == op or call.removesuffix("_") == op


def _op_name(call: Any) -> str:
    return str(call.name).replace("::", ".")


def _launched(call: Any, whole: bool) -> Iterator[tuple[str, float]]:
    """Names and seconds of the device's kernels that a call launched, or all that it calls."""
    for kernel in call.kernels:
        # An annotation (`record_function`) has its span on the device under its own name.
        if kernel.name != call.name:
            yield kernel.name, kernel.duration / 1e6
    if whole:
        for inner in call.cpu_children:
            yield from _launched(inner, True)


def _add(
    table: dict[tuple[str, str, str], Kernel],
    modules: dict[str, dict[str, float]],
    phase: str,
    call: Any,
    op: Op | None,
    launched: list[tuple[str, float]],
) -> None:
    """Count kernels; what their op did belongs to the longest of them."""
    longest = max(range(len(launched)), key=lambda place: launched[place][1], default=0)
    module = op.module if op is not None else ""
    for place, (name, seconds) in enumerate(launched):
        key = (phase, _op_name(call), name)
        kernel = table.get(key)
        if kernel is None:
            kernel = table[key] = Kernel(
                name=name, op=_op_name(call), phase=phase, count=0, seconds=0.0, flops=0, bytes=0
            )
        kernel.count += 1
        kernel.seconds += seconds
        if op is not None and place == longest:
            kernel.flops += op.flops
            kernel.bytes += op.nbytes
        row = modules.setdefault(module, {})
        row[phase] = row.get(phase, 0.0) + seconds


def into(time: Time, profile: Profile, *, on_device: bool) -> Time:
    """The time of bare steps with a profiled step's kernels: they and `outside_kernels` sum to
    each phase.

    The profiler makes the host slower, and one step differs from another. So a CPU's kernels take
    of a bare phase the share that they took of the profiled one. A device's kernels are not slower
    for being watched, and stay as they are, unless they filled more than the whole phase.
    """
    scale: dict[str, float] = {}
    for phase, seconds in time.phases.items():
        busy = sum(kernel.seconds for kernel in profile.kernels if kernel.phase == phase)
        watched = busy if on_device else profile.phases.get(phase, 0.0)
        scale[phase] = seconds / watched if watched else 0.0
        if on_device:
            scale[phase] = min(1.0, scale[phase])
    kernels = [
        kernel.model_copy(update={"seconds": kernel.seconds * scale[kernel.phase]})
        for kernel in profile.kernels
    ]
    outside = {
        phase: seconds - sum(kernel.seconds for kernel in kernels if kernel.phase == phase)
        for phase, seconds in time.phases.items()
    }
    modules = {
        path: {phase: seconds * scale[phase] for phase, seconds in row.items()}
        for path, row in profile.modules.items()
    }
    return time.model_copy(
        update={
            "kernels": sorted(kernels, key=lambda kernel: -kernel.seconds),
            "modules": modules,
            "outside_kernels": {phase: max(0.0, seconds) for phase, seconds in outside.items()},
            "profiled": profile.phases,
        }
    )


def _spans(events: Iterable[Any]) -> list[tuple[str, float, float]]:
    """Each phase with its start and end, in microseconds, in order."""
    marks = sorted(
        (event.time_range.start, event.name.removeprefix(_MARK))
        for event in events
        if event.name.startswith(_MARK)
    )
    return [(phase, start, end) for (start, phase), (end, _) in itertools.pairwise(marks)]


def _phase_at(spans: list[tuple[str, float, float]], at: float) -> str:
    phase = spans[0][0] if spans else PHASES[0]
    for name, start, _ in spans:
        if start > at:
            break
        phase = name
    return phase
