"""A first estimate of a step's time: each op at the roof of its card, one after another.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4),
2009: an op takes the longer of its FLOPs at the card's rate and its bytes at the card's bandwidth.
Caches, occupancy, GEMM shapes and launches are not in it, so it is a lower bound.
"""

from __future__ import annotations

from profiler.hardware.devices import Device
from profiler.record import Kernel, Time
from profiler.trace import Trace

#: What a record with such a time says of it.
APPROXIMATION = (
    "The step time is a first estimate and a lower bound: every op at the card's datasheet rate "
    "or bandwidth, without launches, caches or kernel efficiency."
)


def predict(trace: Trace, device: Device, tokens: int) -> Time:
    """The time of the first measured step on a card.

    Args:
        tokens: positions that one optimizer step trains on, for tokens per second.
    """
    phases = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    kernels: dict[tuple[str, str], Kernel] = {}
    for op in trace.ops:
        if op.step != 1:
            continue
        seconds = op.nbytes / device.memory_bandwidth
        if op.flops:
            seconds = max(seconds, op.flops / rate(device, op.dtype))
        phases[op.phase] += seconds
        key = (op.phase, op.name)
        kernel = kernels.get(key)
        if kernel is None:
            kernel = kernels[key] = Kernel(
                name=op.name, op=op.name, phase=op.phase, count=0, seconds=0.0, flops=0, bytes=0
            )
        kernel.count += 1
        kernel.seconds += seconds
        kernel.flops += op.flops
        kernel.bytes += op.nbytes
    step = sum(phases.values())
    return Time(
        source="predicted",
        step=step,
        phases=phases,
        tokens_per_second=tokens / step if step else 0.0,
        kernels=sorted(kernels.values(), key=lambda kernel: -kernel.seconds),
    )


def rate(device: Device, dtype: str) -> float:
    """FLOP/s of matrix products in a dtype; torch keeps float32 off the tensor cores by default
    (`torch.backends.cuda.matmul.allow_tf32`), and a card without bfloat16 computes it in float32."""
    return device.tensor_flops.get(dtype, device.fp32_flops)
