"""This CPU's device profile, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from profiler.analysis.cpu_cost import CpuCost
from profiler.calibration import attention, host, kernels, memory, products, quantized
from profiler.calibration.operands import Operands, cache_bytes
from profiler.calibration.timing import STATISTIC, Stopwatch
from profiler.environment import environment
from profiler.hardware.device_profile import DeviceProfile, Host

DTYPES = (torch.float32, torch.bfloat16)

#: Seconds that a figure's repetitions take together.
LEAST = 0.01
QUICK_LEAST = 0.0005
_QUICK_MEMORY = 2 << 20

#: What a calibration consists of, in its order.
PARTS = ("products", "quantised", "kernels", "copies", "attention", "fresh memory", "host")


def calibrate(
    *, threads: int, quick: bool, part: Callable[[str], None] = lambda name: None
) -> DeviceProfile:
    """Measure this CPU.

    Args:
        threads: that torch computes with.
        quick: few small sizes, shortly.
        part: called with the name of each part (`PARTS`) before it begins.
    """
    started = time.perf_counter()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = _measured(threads, quick, part)
    finally:
        torch.set_num_threads(before)
    return found.model_copy(update={"seconds": round(time.perf_counter() - started, 1)})


def _measured(threads: int, quick: bool, part: Callable[[str], None]) -> DeviceProfile:
    watch = Stopwatch(threads=threads, least=QUICK_LEAST if quick else LEAST)
    if not quick:
        memory.back()
    operands = Operands(_QUICK_MEMORY if quick else 2 * cache_bytes())
    with torch.no_grad(), memory.keeping_freed():
        part("products")
        timed = products.measure(watch, operands, DTYPES, quick=quick)
        part("quantised")
        packed, unpacking = quantized.measure(watch, DTYPES, quick=quick)
        part("kernels")
        curves = kernels.measure(watch, operands, DTYPES, quick=quick)
        part("copies")
        copies = memory.copies(watch, operands, quick=quick)
    part("attention")
    fused = attention.measure(watch, operands, DTYPES, quick=quick)
    part("fresh memory")
    fault = memory.fault(watch, quick=quick)
    about = environment("cpu")
    profile = DeviceProfile(
        schema=1,
        kind="cpu",
        name=str(about["cpu"]),
        threads=threads,
        clock=watch.clock.__name__,
        statistic=STATISTIC,
        quick=quick,
        seconds=0.0,
        environment=about,
        products=timed + packed,
        kernels=curves + unpacking,
        attention=fused,
        copies=copies,
        host=Host(forward=0.0, backward=0.0, optimizer=0.0, tensor=0.0),
        fault=fault,
    )
    part("host")
    return profile.model_copy(update={"host": host.measure(watch, CpuCost(profile), quick=quick)})
