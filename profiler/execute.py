"""One cell from end to end: resolve, build, run on its bench, analyse, record.

A measured cell goes to a process of its own, a simulated one is run in this process.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.analysis import again, cpu_cost, flops, out_of_memory, step_time, utilisation
from profiler.analysis.alloc_conf import AllocConf
from profiler.environment import environment
from profiler.errors import UnsupportedError, UsageError
from profiler.hardware import calibrated, devices
from profiler.record import Fits, Params, Record
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec
from profiler.store import Store
from profiler.trace import Trace

if TYPE_CHECKING:
    from profiler.hardware.devices import Device


def run(
    spec: RunSpec,
    *,
    ignore_memory: bool = False,
    timeout: float | None = None,
    traces: Path | None = None,
    full_trace: bool = False,
) -> Record:
    """Run one cell.

    Args:
        ignore_memory: Run a measured cell although it will not fit in memory.
        timeout: Seconds that a measured cell may take, None for any time.
        traces: Folder of a store in which to keep the run's trace (`Store.trace_path`).
        full_trace: Run all layers of a simulated cell, also where its steps could be written from
            those of a few (`profiler.bench.repetition`). No figure depends on it.

    Raises:
        UsageError: what the spec asks for does not exist (see `profiler.resolve`). Anything else
            that goes wrong is the record's `status` and `error`.
    """
    cell = resolve(spec)
    return run_cell(
        cell, ignore_memory=ignore_memory, timeout=timeout, traces=traces, full_trace=full_trace
    )


def run_cell(
    cell: Cell,
    *,
    ignore_memory: bool = False,
    timeout: float | None = None,
    traces: Path | None = None,
    full_trace: bool = False,
) -> Record:
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

            return run_isolated(cell, ignore_memory=ignore_memory, timeout=timeout, traces=traces)
        with _settled():
            trace = _simulate(cell, record, full_trace=full_trace)
    except UsageError:
        raise
    except UnsupportedError as error:
        record.status, record.error = "unsupported", str(error)
    except Exception as error:
        text = " ".join(str(error).split())
        record.error = f"{type(error).__name__}: {text}"[:500]
    else:
        if traces is not None:
            Store(traces).keep_trace(record, trace)
    return record


def _simulate(cell: Cell, record: Record, *, full_trace: bool) -> Trace:
    """Fill in the record of a cell; its trace."""
    spec = cell.spec
    device = again.simulated_device(cell.record_spec)
    if cell.history is not None:
        return _simulate_history(cell, record, device)
    trace, record.params, record.traced = _trace(cell, device, full=full_trace)
    level = again.levels(trace, cell.record_spec)
    record.memory = again.analyse(trace, level, cell.record_spec)
    record.flops = flops.analyse(trace)
    record.approximations = [*trace.approximations, *flops.approximations(trace)]
    record.status = "ok"
    tokens = spec.batch_size * spec.seq_len * spec.grad_accumulation
    if device is None:
        if cell.calibration is not None:
            record.time = cpu_cost.predict(trace, cell.calibration, tokens)
            record.approximations.append(cpu_cost.approximation(cell.calibration))
        return trace
    if cell.calibration is not None:
        ops = [op for op in trace.ops if op.step == 1]
        machine = calibrated.ceilings(cell.calibration, device)
        record.time = step_time.of_ops(ops, machine, tokens)
    else:
        record.time = step_time.predict(trace, device, tokens)
    record.time.mfu = utilisation.on_device(record.flops, record.time.step, spec, device)
    needed = _fits(record, device)
    if level.oom is not None:
        conf = AllocConf.parse(spec.alloc_conf)
        record.status = "oom"
        record.error = out_of_memory.of_trace(trace, level, conf, device.usable_bytes, needed)
    return trace


#: Why cells of a kind were traced whole: a sweep's next one of that kind is not tried again.
_NOT_REPEATED: dict[str, str] = {}


def _kind(cell: Cell) -> str:
    """A cell but for its batch and its card, which do not decide whether layers repeat."""
    fields = cell.spec.to_dict()
    for name in ("batch_size", "seq_len", "seed", "device", "vram", "alloc_conf", "steps"):
        del fields[name]
    return json.dumps([fields, cell.model.config, cell.config], sort_keys=True, default=str)


def _trace(cell: Cell, device: Device | None, *, full: bool) -> tuple[Trace, Params, str]:
    """The trace of a cell's steps, its subject's counts, and how the trace was made."""
    from profiler.bench.loaded import Loaded
    from profiler.bench.repetition.errors import NotPeriodicError
    from profiler.bench.repetition.simulate import simulate_by_repetition

    kind = _kind(cell)
    whole = Loaded(cell, device)
    reason = "asked for" if full else _NOT_REPEATED.get(kind, "")
    if not reason:
        try:
            return (*simulate_by_repetition(whole), "by repetition of layers")
        except NotPeriodicError as error:
            reason = _NOT_REPEATED[kind] = str(error)
            if error.spent:
                whole = Loaded(cell, device)
    params = whole.subject.params
    return whole.trace(), params, f"whole: {reason}"


def _simulate_history(cell: Cell, record: Record, device: Device | None) -> Trace:
    """Fill in the record of a run of many lengths; the trace of its peak's step.

    FLOPs and time are of the mean step: those of all steps over their number.
    """
    from profiler.analysis import history as runs
    from profiler.analysis import history_record, history_time
    from profiler.bench.history import simulate_history
    from profiler.bench.loaded import Loaded

    spec, history = cell.spec, cell.history
    assert history is not None
    loaded = Loaded(cell, device)
    record.params = loaded.subject.params
    run = simulate_history(loaded.subject, spec, device, loaded.load, history)
    conf = AllocConf.parse(spec.alloc_conf)
    capacity = None if device is None else device.usable_bytes
    level = runs.levels(run.steps, conf, capacity)
    record.memory, trace = history_record.analyse(
        run.steps,
        level,
        history.batches,
        run.before,
        simulated=run.simulated,
        shapes=run.shapes,
    )
    record.memory.outside_allocator |= run.trace.outside
    trace.outside, trace.approximations = run.trace.outside, run.trace.approximations
    record.approximations = list(run.trace.approximations)
    times = Counter(run.steps.order)
    steps = len(run.steps.order)
    record.flops = history_record.mean_flops(
        [(ops, times[index]) for index, ops in enumerate(run.ops)], steps
    )
    record.status = "ok"
    if device is None:
        return trace
    record.time = history_time.predict(
        run.ops,
        run.whole,
        run.steps.order,
        [batch.shape for batch in history.batches],
        device,
        history.tokens,
    )
    record.time.mfu = utilisation.on_device(record.flops, record.time.step, spec, device)
    assert record.memory.peak_reserved is not None
    record.memory.outside_allocator["cuda_context"] = device.cuda_context_bytes
    record.memory.device_total = record.memory.peak_reserved + device.cuda_context_bytes
    needed = _fits(record, device)
    if level.oom is not None:
        record.status = "oom"
        record.error = out_of_memory.of_history(
            run.steps, level, history.batches, conf, device.usable_bytes, needed
        )
    return trace


def _fits(record: Record, device: Device) -> int:
    """Say whether a GPU holds it; the bytes it needs of the device."""
    needed = record.memory.device_total
    assert needed is not None
    record.approximations.append(step_time.approximation(device))
    record.fits = Fits(capacity=device.memory_bytes, headroom=device.memory_bytes - needed)
    return needed


@contextmanager
def _settled() -> Iterator[None]:
    """Keep the collector off what is there already: libraries and earlier records.

    A cell makes some 100,000 objects that stay; each full collection would walk the libraries'
    600,000 for nothing (0.4 s of a 5 s cell). New objects are collected as ever, more of them at a
    time (0.1 s), and what the cell leaves in cycles, its model above all, at its end (0.1 s): after
    that it would count as the libraries' own, and a long sweep would grow by 20 MB a cell.
    """
    if gc.get_freeze_count():  # someone else's choice, and only they may undo it
        yield
        return
    gc.freeze()
    threshold = gc.get_threshold()
    gc.set_threshold(20 * threshold[0], *threshold[1:])
    try:
        yield
    finally:
        gc.collect()
        gc.set_threshold(*threshold)
        gc.unfreeze()
