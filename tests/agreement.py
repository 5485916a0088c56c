"""A step really run here beside its simulation as this CPU."""

from __future__ import annotations

import pytest

from profiler.analysis import flops, memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench.measured import prepare, track
from profiler.execute import run
from profiler.record import Record
from profiler.resolve import resolve
from profiler.spec import RunSpec


def tracked(spec: RunSpec) -> Record:
    """What the tracker sees of the real step, without timing it."""
    cell = resolve(spec)
    subject, step = prepare(cell)
    trace = track(subject, step)
    return Record(
        id=cell.id,
        status="ok",
        source="measured",
        spec=cell.record_spec,
        params=subject.params,
        memory=memory.analyse(trace, memory.levels(trace, AllocConf(), None)),
        flops=flops.analyse(trace),
    )


def both(**fields: object) -> tuple[Record, Record]:
    """Measured here, in this process, and simulated."""
    spec = RunSpec(**{"seq_len": 24, **fields, "device": "sim:cpu"})  # type: ignore[arg-type]
    simulated = run(spec)
    if simulated.status == "unsupported":
        pytest.skip(simulated.error or "")
    assert simulated.status == "ok", simulated.error
    return tracked(spec.replace(device="cpu")), simulated


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
