"""Kernels of one step, from `torch.profiler`, by phase."""

from __future__ import annotations

import torch

from profiler.record import Kernel
from profiler.subject.workloads.train import TrainStep, Unwatched
from profiler.trace import Trace

_MARK = "profiler.phase."


class _PhaseMarks(Unwatched):
    """Puts each phase's start into the profile."""

    def phase(self, name: str) -> None:
        with torch.profiler.record_function(_MARK + name):
            pass


def profile(step: TrainStep, trace: Trace, device: str) -> list[Kernel]:
    """Run one step under the profiler; its ops (on CUDA its kernels) by phase, longest first.

    An op's seconds are its own, without the ops that it calls, so that they add up. FLOPs and
    bytes come from the trace of the same step, where the op has them.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as result:
        step(_PhaseMarks())
        if device == "cuda":
            torch.cuda.synchronize()
    events = [event for event in result.events() or [] if event.name]
    marks = sorted(
        (event.time_range.start, event.name.removeprefix(_MARK))
        for event in events
        if event.name.startswith(_MARK)
    )
    work = _work(trace)
    table: dict[tuple[str, str], Kernel] = {}
    for event in events:
        if event.name.startswith(_MARK):
            continue
        on_device = event.device_type == torch.autograd.DeviceType.CUDA
        if (device == "cuda") != on_device:
            continue
        seconds = (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e6
        phase = _phase_at(marks, event.time_range.start)
        op = event.name.replace("::", ".")
        kernel = table.get((phase, op))
        if kernel is None:
            done, moved = work.get((phase, op), (0, 0))
            kernel = table[phase, op] = Kernel(
                name=event.name,
                op=op,
                phase=phase,
                count=0,
                seconds=0.0,
                flops=done,
                bytes=moved,
            )
        kernel.count += 1
        kernel.seconds += seconds
    return sorted(table.values(), key=lambda kernel: -kernel.seconds)


def _work(trace: Trace) -> dict[tuple[str, str], tuple[int, int]]:
    """FLOPs and bytes of the measured step, by phase and op."""
    work: dict[tuple[str, str], tuple[int, int]] = {}
    for op in trace.ops:
        if op.step == 1:
            done, moved = work.get((op.phase, op.name), (0, 0))
            work[op.phase, op.name] = (done + op.flops, moved + op.nbytes)
    return work


def _phase_at(marks: list[tuple[float, str]], at: float) -> str:
    phase = marks[0][1] if marks else "forward"
    for start, name in marks:
        if start > at:
            break
        phase = name
    return phase
