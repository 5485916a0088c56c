"""A first estimate of a step's time: each op at the roof of its card, one after another.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4),
2009: an op takes the longer of its FLOPs at the card's rate and its bytes at the card's bandwidth.
Caches, occupancy, GEMM shapes and launches are not in it, so it is a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable

from profiler.hardware.devices import Device
from profiler.record import Kernel, Time
from profiler.trace import Op, Trace

#: Types that a card has a rate for; a product of others (float64, integers) is none of training's.
_RATED = frozenset({"float32", "bfloat16", "float16", "int8"})

#: What a record with such a time says of it.
APPROXIMATION = (
    "The step time is a first estimate and a lower bound: every op at the card's datasheet rate "
    "or bandwidth, without launches, caches or kernel efficiency."
)


def op_seconds(op: Op, device: Device) -> float:
    """The time of one op on a card."""
    seconds = op.nbytes / device.memory_bandwidth
    if op.flops:
        rate = device.peak_flops(op.dtype if op.dtype in _RATED else "float32")
        seconds = max(seconds, op.flops / rate)
    return seconds


def predict(trace: Trace, device: Device, tokens: int) -> Time:
    """The time of the first measured step on a card.

    Args:
        tokens: positions that one optimizer step trains on, for tokens per second.
    """
    return predict_ops(((op, 1) for op in trace.ops if op.step == 1), device, tokens)


def predict_ops(ops: Iterable[tuple[Op, int]], device: Device, tokens: int) -> Time:
    """As `predict`, of a step's ops and how often each is run."""
    phases = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    kernels: dict[tuple[str, str], Kernel] = {}
    for op, count in ops:
        seconds = op_seconds(op, device) * count
        phases[op.phase] += seconds
        key = (op.phase, op.name)
        kernel = kernels.get(key)
        if kernel is None:
            kernel = kernels[key] = Kernel(
                name=op.name, op=op.name, phase=op.phase, count=0, seconds=0.0, flops=0, bytes=0
            )
        kernel.count += count
        kernel.seconds += seconds
        kernel.flops += op.flops * count
        kernel.bytes += op.nbytes * count
    step = sum(phases.values())
    return Time(
        source="predicted",
        step=step,
        phases=phases,
        tokens_per_second=tokens / step if step else 0.0,
        kernels=sorted(kernels.values(), key=lambda kernel: -kernel.seconds),
    )
