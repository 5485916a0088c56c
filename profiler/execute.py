"""One cell from end to end: resolve, build, run on its bench, analyse, record.

A measured cell goes to a process of its own, a simulated one is run in this process.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from profiler.analysis import flops, memory, roofline
from profiler.analysis.alloc_conf import AllocConf
from profiler.environment import environment
from profiler.errors import UnsupportedError, UsageError
from profiler.hardware import devices
from profiler.record import Fits, Record
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec


def run(spec: RunSpec, *, ignore_memory: bool = False, timeout: float | None = None) -> Record:
    """Run one cell.

    Args:
        ignore_memory: Run a measured cell although it will not fit in memory.
        timeout: Seconds that a measured cell may take, None for any time.

    Raises:
        UsageError: what the spec asks for does not exist (see `profiler.resolve`). Anything else
            that goes wrong is the record's `status` and `error`.
    """
    return run_cell(resolve(spec), ignore_memory=ignore_memory, timeout=timeout)


def run_cell(cell: Cell, *, ignore_memory: bool = False, timeout: float | None = None) -> Record:
    """Run a resolved cell; as `run`."""
    measured = cell.spec.device in devices.MEASURED
    record = Record(
        id=cell.id,
        status="failed",
        source="measured" if measured else "simulated",
        spec=cell.record_spec,
        environment=environment(cell.spec.device),
    )
    if cell.unsupported:
        return record.model_copy(update={"status": "unsupported", "error": cell.unsupported})
    try:
        if measured:
            from profiler.isolation import run_isolated

            return run_isolated(cell, ignore_memory=ignore_memory, timeout=timeout)
        with _settled():
            _simulate(cell, record)
    except UsageError:
        raise
    except UnsupportedError as error:
        record.status, record.error = "unsupported", str(error)
    except Exception as error:
        text = " ".join(str(error).split())
        record.error = f"{type(error).__name__}: {text}"[:500]
    return record


def _simulate(cell: Cell, record: Record) -> None:
    from profiler.bench.simulated import simulate
    from profiler.subject.subject import build

    spec = cell.spec
    device = None if spec.device == "sim:cpu" else devices.device(spec.device)
    subject = build(cell)
    record.params = subject.params
    trace = simulate(subject, spec, device)
    capacity = device.usable_bytes if device is not None else None
    level = memory.levels(trace, AllocConf.parse(spec.alloc_conf), capacity)
    record.memory = memory.analyse(trace, level)
    record.flops = flops.analyse(trace)
    record.approximations = list(trace.approximations)
    if device is None:
        record.status = "ok"
        return
    tokens = spec.batch_size * spec.seq_len * spec.grad_accumulation
    record.time = roofline.predict(trace, device, tokens)
    record.approximations.append(roofline.APPROXIMATION)
    result = record.memory
    assert result.peak_reserved is not None
    result.outside_allocator["cuda_context"] = device.cuda_context_bytes
    result.device_total = result.peak_reserved + device.cuda_context_bytes
    record.fits = Fits(
        capacity=device.memory_bytes, headroom=device.memory_bytes - result.device_total
    )
    record.status = "ok"
    if level.oom is not None:
        block = trace.blocks[trace.events[level.oom.event] - 1]
        record.status = "oom"
        record.error = (
            f"out of memory in the {block.phase} at {block.op}"
            f"{' in ' + block.module if block.module else ''}: {_gib(level.oom.requested)} more "
            f"with {_gib(level.oom.allocated)} allocated of {_gib(level.oom.capacity)}; "
            f"the step needs {_gib(result.device_total)} in all"
        )


@contextmanager
def _settled() -> Iterator[None]:
    """Keep the collector off what is there already: libraries and earlier records.

    A cell makes some 100,000 objects that stay; each full collection would walk the libraries'
    600,000 for nothing (0.4 s of a 5 s cell). New objects are collected as ever.
    """
    if gc.get_freeze_count():  # someone else's choice, and only they may undo it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB"
