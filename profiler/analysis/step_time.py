"""The time of a step on a card that is known by its datasheet: each op by the cost model, all of
them through the launch queue."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from profiler.analysis.cost_model import BOUNDS, cost, issue_seconds
from profiler.analysis.launch_queue import Task, drain
from profiler.hardware.ceilings import Ceilings
from profiler.hardware.devices import Device
from profiler.hardware.efficiency import VERIFIED_ON, ceilings
from profiler.record import Kernel, Time
from profiler.trace import PHASES, Op, Trace


def predict(trace: Trace, device: Device, tokens: int) -> Time:
    """The time of the first measured step on a card.

    Args:
        tokens: positions that one optimizer step trains on, for tokens per second.
    """
    return predict_ops([op for op in trace.ops if op.step == 1], device, tokens)


def predict_ops(ops: Sequence[Op], device: Device, tokens: int) -> Time:
    """As `predict`, of a step's ops in their order."""
    return of_ops(ops, ceilings(device), tokens)


def of_ops(ops: Sequence[Op], machine: Ceilings, tokens: int) -> Time:
    """The time of a step's ops, in their order, on a machine.

    Idling counts to the phase of the op that the device waits for, and as launch; what the host
    does after the last op, to the last op's.
    """
    costs = [cost(op, machine) for op in ops]
    tasks = [
        Task(issue_seconds(op, machine.issue), one.seconds, op.waits)
        for op, one in zip(ops, costs, strict=True)
    ]
    drained = drain(tasks, queued=machine.queued, before=machine.issue.step)
    phases = dict.fromkeys(PHASES, 0.0)
    bound: dict[str, float] = dict.fromkeys(BOUNDS, 0.0)
    outside = dict.fromkeys(PHASES, 0.0)
    modules: dict[str, dict[str, float]] = {}
    kernels: dict[tuple[str, str], Kernel] = {}
    outside[ops[-1].phase if ops else PHASES[-1]] += drained.rest
    for op, one, slot in zip(ops, costs, drained.slots, strict=True):
        phases[op.phase] += slot.end - slot.start
        outside[op.phase] += slot.idle
        if not op.kernels:
            continue
        bound[one.bound] += one.seconds
        module = modules.setdefault(op.module, {})
        module[op.phase] = module.get(op.phase, 0.0) + one.seconds
        kernel = kernels.get((op.phase, op.name))
        if kernel is None:
            kernel = kernels[op.phase, op.name] = Kernel(
                name=op.name, op=op.name, phase=op.phase, count=0, seconds=0.0, flops=0, bytes=0
            )
        kernel.count += op.kernels
        kernel.seconds += one.seconds
        kernel.flops += op.flops
        kernel.bytes += op.nbytes
    for phase, seconds in outside.items():
        phases[phase] += seconds
        bound["launch"] += seconds
    return Time(
        source="predicted",
        step=drained.total,
        phases=phases,
        tokens_per_second=tokens / drained.total if drained.total else 0.0,
        bound=bound,
        kernels=sorted(kernels.values(), key=lambda kernel: -kernel.seconds),
        outside_kernels=outside,
        modules=modules,
    )


def spans(ops: Sequence[Op], device: Device) -> list[float]:
    """Seconds of each op of a trace, from the end of the one before to its own.

    Steps are drained one after another, each from an idle device; what the host does after a step's
    last op counts to that.
    """
    machine = ceilings(device)
    seconds: list[float] = []
    for _, step in itertools.groupby(ops, key=lambda op: op.step):
        drained = drain(
            (
                Task(issue_seconds(op, machine.issue), cost(op, machine).seconds, op.waits)
                for op in step
            ),
            queued=machine.queued,
            before=machine.issue.step,
        )
        seconds += [slot.end - slot.start + slot.idle for slot in drained.slots]
        seconds[-1] += drained.rest
    return seconds


def approximation(device: Device) -> str:
    """What a record with such a time says of it."""
    return (
        "The step time is a model's: kernels by the card's datasheet, shapes and global "
        f"efficiencies, issued by a host like the one of the published runs. {_held(device)}"
    )


def _held(device: Device) -> str:
    if device.key not in VERIFIED_ON:
        return (
            f"It was held against published runs on other cards ({', '.join(VERIFIED_ON)}) alone."
        )
    count, median, worst = VERIFIED_ON[device.key]
    return (
        f"On {count} published runs on this card it is off by {median:.0%} in the median, by "
        f"{worst:.0%} at most."
    )
