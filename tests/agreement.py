"""A step really run here beside its simulation as this CPU."""

from __future__ import annotations

import pytest

from profiler.analysis import flops, memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench.measured import prepare, track
from profiler.errors import UnsupportedError, UsageError
from profiler.execute import run
from profiler.record import Record
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec


def tracked(spec: RunSpec) -> Record:
    """What the tracker sees of the real step, without timing it."""
    cell = resolve(spec)
    subject, step = prepare(cell)
    trace = track(subject, step)
    counted = [op for op in trace.ops if op.step == 1]
    assert not flops.uncounted(counted), "matrix products without a formula of their FLOPs"
    return Record(
        id=cell.id,
        status="ok",
        source="measured",
        spec=cell.record_spec,
        params=subject.params,
        memory=memory.analyse(trace, memory.levels(trace, AllocConf(), None)),
        flops=flops.analyse(trace),
    )


def resolved(spec: RunSpec) -> Cell:
    """The cell of a spec; skips what does not go together."""
    try:
        cell = resolve(spec)
    except UsageError as error:  # the options are the test's, and peft refuses them
        pytest.skip(str(error))
    if cell.unsupported:
        pytest.skip(cell.unsupported)
    return cell


def both(**fields: object) -> tuple[Record, Record]:
    """Measured here, in this process, and simulated; skips what does not go together.

    Raises what the real step raises.
    """
    spec = RunSpec(**{"seq_len": 24, **fields, "device": "sim:cpu"})  # type: ignore[arg-type]
    resolved(spec)
    try:
        measured = tracked(spec.replace(device="cpu"))
    except (UsageError, UnsupportedError) as error:
        pytest.skip(str(error))
    simulated = run(spec)
    assert simulated.status == "ok", simulated.error
    return measured, simulated


def assert_same_bytes(measured: Record, simulated: Record) -> None:
    assert measured.source == "measured"
    assert simulated.source == "simulated"
    one, other = measured.memory, simulated.memory
    assert one.phases == other.phases
    assert one.at_peak == other.at_peak
    assert one.modules == other.modules
    assert one.peak_allocated == other.peak_allocated
    assert one.after_step_allocated == other.after_step_allocated
    assert measured.flops == simulated.flops
    assert measured.params == simulated.params
