"""Before a measured run: does it fit into the memory that is there?"""

from __future__ import annotations

import dataclasses

from profiler.hardware.host_memory import Available
from profiler.report.units import gib_unit
from profiler.resolve import Cell

#: Bytes that the process of a measured run takes besides its tensors, at the least. Measured with
#: torch 2.13.0+cpu, transformers 5.23.0, peft 0.21.2 and bitsandbytes 0.50.2 on x86-64 Linux: 400
#: MiB once all four are imported; 680 to 900 MiB over whole runs of OPT-125M (what the C library
#: keeps of freed memory, what kernels take outside torch's allocator, the profiler's events), more
#: for larger models. What is missing here, the watch over the run finds (`profiler.isolation`).
PROCESS_BYTES = 700 * 2**20


def predicted_bytes(cell: Cell) -> int | None:
    """Peak of the tensors of a `cpu` cell in bytes, by simulation as `sim:cpu`; None if that fails.

    While the model is built there is never more than this: weights are made where they stay, 4-bit
    ones packed from the start.
    """
    from profiler.execute import run_cell

    spec = cell.spec.replace(device="sim:cpu")
    memory = run_cell(dataclasses.replace(cell, spec=spec)).memory
    peaks = [peak for peak in (memory.peak_allocated, memory.load_peak) if peak is not None]
    return max(peaks, default=None)


def refusal(tensors: int, available: Available) -> str:
    """Why a run whose tensors take so many bytes must not start, "" if it fits."""
    needed = tensors + PROCESS_BYTES
    if needed <= available.nbytes - available.reserve:
        return ""
    return (
        f"would not fit in memory: it needs at least {_gib(needed)} ({_gib(tensors)} simulated, "
        f"{_gib(PROCESS_BYTES)} for the process) and {_gib(available.nbytes)} are available "
        f"{available.where}, of which {_gib(available.reserve)} are kept free; "
        "--ignore-memory runs it all the same"
    )


def _gib(nbytes: int) -> str:
    return gib_unit(nbytes, 2)
