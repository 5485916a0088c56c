"""What holds of every record with a result."""

from __future__ import annotations

import pytest

from profiler.analysis.memory import MODULE_COLUMNS
from profiler.record import Record


def check_invariants(record: Record) -> None:
    memory = record.memory
    assert memory.peak_allocated is not None
    assert memory.peak_allocated > 0
    assert sum(memory.at_peak.values()) == memory.peak_allocated
    assert all(value >= 0 for value in memory.at_peak.values())
    assert max(memory.phases.values()) == memory.peak_allocated
    assert memory.after_step_allocated is not None
    assert memory.after_step_allocated <= memory.peak_allocated
    if memory.peak_reserved is not None:
        assert memory.peak_reserved >= memory.peak_allocated
    for column, categories in MODULE_COLUMNS.items():
        held = sum(row[column] for row in memory.modules.values())
        assert held == sum(memory.at_peak[category] for category in categories)
    for category, nbytes in memory.at_peak.items():
        groups = [group for group in memory.holders if group.category == category]
        assert sum(group.bytes for group in groups) == nbytes
        assert all(group.count > 0 for group in groups)
        # What has no name is the rest, and smaller than what has one.
        assert sum(not group.op for group in groups) <= 1
    assert memory.timeline is not None
    points = [sum(point) for point in zip(*memory.timeline.allocated.values(), strict=True)]
    assert max(points) == memory.peak_allocated
    assert len(points) <= 2000
    assert record.flops is not None
    assert sum(record.flops.phases.values()) == record.flops.total
    if memory.history is None:  # a run's ops are put together without their modules
        for phase, count in record.flops.phases.items():
            assert sum(row.get(phase, 0) for row in record.flops.modules.values()) == count
    assert not any(sentence.startswith("The FLOPs of aten") for sentence in record.approximations)
    assert record.params is not None
    assert 0 < record.params.trainable <= record.params.total
    if record.time is not None:
        time = record.time
        for phase, seconds in time.phases.items():
            kernels = sum(kernel.seconds for kernel in time.kernels if kernel.phase == phase)
            modules = sum(row.get(phase, 0.0) for row in time.modules.values())
            assert modules == pytest.approx(kernels, rel=1e-9)
            assert kernels + time.outside_kernels[phase] == pytest.approx(seconds, rel=1e-9)
            assert time.outside_kernels[phase] >= 0
        assert any(kernel.seconds for kernel in time.kernels)
        if record.source == "simulated":
            assert time.source == "predicted"
            assert time.step == pytest.approx(sum(time.phases.values()), rel=1e-9)
            assert not time.bound or time.step == pytest.approx(sum(time.bound.values()), rel=1e-9)
        else:
            assert time.source == "measured"
        if time.mfu is not None:
            assert 0 < time.mfu < 1
