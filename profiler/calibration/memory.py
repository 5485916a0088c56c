"""Copies by size, and what memory costs that the system gives anew."""

from __future__ import annotations

import ctypes
import mmap
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from profiler.calibration.operands import Operands
from profiler.calibration.timing import Stopwatch
from profiler.hardware.device_profile import Copy
from profiler.hardware.host_memory import HostMemory

#: Bytes of each block that is copied.
SIZES = tuple(1 << power for power in range(14, 25, 2))
QUICK_SIZES = (1 << 14, 1 << 20)

#: Bytes of fresh memory, and how often they are written.
_FRESH = 64 << 20
_QUICK_FRESH = 4 << 20
REPEATED = 5

#: Share of the available memory that is written to first: more than any step here takes.
BACKED = 0.5

#: What malloc's M_TRIM_THRESHOLD grows to on a 64-bit system.
_USUAL_TRIM = 64 << 20

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_USUAL_MMAP_MAX = 65536


def copies(watch: Stopwatch, operands: Operands, *, quick: bool) -> list[Copy]:
    """Copies of each size, none of it in a cache."""
    found = []
    for nbytes in QUICK_SIZES if quick else SIZES:
        target = operands.cold(nbytes // 4, dtype=torch.float32)
        source = operands.cold(nbytes // 4, dtype=torch.float32)
        next(source)  # not the same one
        call = operands.call(_copy, target, source)
        found.append(Copy(nbytes=nbytes, seconds=watch.seconds(call)))
    return found


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source)


def back(share: float = BACKED) -> None:
    """Write to a share of the memory that is available, and give it back.

    A virtual machine has its memory from its host page by page, at the first write to each: 11 µs a
    page, where a fault otherwise takes 2 (on a machine just started: 1.8 s for a step of full
    fine-tuning that takes 1.15 s from then on). Neither a calibration nor a step is to pay it.
    """
    nbytes = int(share * HostMemory().available().nbytes)
    if nbytes >= mmap.PAGESIZE:
        _mapped(nbytes)[:: mmap.PAGESIZE].fill_(1)


def fault(watch: Stopwatch, *, quick: bool) -> float:
    """Seconds for a byte of fresh memory: mapping, writing to and unmapping it, less writing to it
    again."""
    nbytes = _QUICK_FRESH if quick else _FRESH
    kept = _mapped(nbytes)
    again = [watch.seconds(lambda: kept.fill_(1)) for _ in range(REPEATED)]
    fresh = [watch.seconds(lambda: _mapped(nbytes).fill_(1)) for _ in range(REPEATED)]
    return max(0.0, statistics.median(fresh) - statistics.median(again)) / nbytes


def _mapped(nbytes: int) -> torch.Tensor:
    """Memory that no program had before, as malloc maps a large block."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return torch.frombuffer(mmap.mmap(-1, nbytes, flags=private), dtype=torch.uint8)


@contextmanager
def keeping_freed() -> Iterator[None]:
    """Have malloc give nothing back meanwhile, so that kernels are timed without page faults,
    which `fault` stands for; a no-op without glibc."""
    _set(mmap_max=0, trim=2**31 - 1)
    try:
        yield
    finally:
        _set(mmap_max=_USUAL_MMAP_MAX, trim=_USUAL_TRIM)


def _set(*, mmap_max: int, trim: int) -> None:
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, mmap_max)
        libc.mallopt(_M_TRIM_THRESHOLD, trim)
        libc.malloc_trim(0)
