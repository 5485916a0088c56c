"""Statistics of a CUDA device's allocator, against a stand-in that counts as torch.cuda does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from profiler.bench import cuda_memory
from profiler.execute import run
from profiler.record import Memory
from profiler.spec import RunSpec


class Statistics:
    """What torch.cuda keeps: the current level and its peak since the last reset."""

    def __init__(self) -> None:
        self.level = 1000
        self.peak = 1000

    def allocate(self, nbytes: int) -> None:
        self.level += nbytes
        self.peak = max(self.peak, self.level)

    def reset(self) -> None:
        self.peak = self.level


def test_peaks_are_the_allocators_phase_by_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Statistics()
    segments = [{"total_size": 2048, "allocated_size": 1000, "active_size": 1000, "more": 1}]
    for name, value in {
        "synchronize": lambda: None,
        "max_memory_allocated": lambda: seen.peak,
        "max_memory_reserved": lambda: seen.peak + 24,
        "memory_allocated": lambda: seen.level,
        "reset_peak_memory_stats": seen.reset,
        "memory_stats": lambda: {"num_ooms": 0, "other": 1},
        "memory_snapshot": lambda: segments,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def step(probe: Any) -> None:
        probe.phase("forward")
        seen.allocate(500)
        probe.phase("backward")
        seen.allocate(700)
        seen.allocate(-900)
        probe.phase("optimizer")
        seen.allocate(100)
        seen.allocate(-400)

    tracked = Memory(at_peak={"activations": 2000, "workspaces": 0})
    memory = cuda_memory.measure(step, tracked, 5000)  # type: ignore[arg-type]
    assert memory.phases == {"forward": 1500, "backward": 2200, "optimizer": 1400}
    assert memory.peak_allocated == 2200
    assert sum(memory.at_peak.values()) == 2200
    assert memory.after_step_allocated == 1000
    assert memory.peak_reserved == 2224
    assert memory.device_total == 5000
    assert memory.cuda_allocator == {"num_ooms": 0}  # type: ignore[attr-defined]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_cuda_step_is_what_is_simulated(method: str) -> None:
    record = run(RunSpec(model="opt-125m", method=method, seq_len=128, device="cuda", steps=3))
    assert record.status == "ok", record.error
    assert record.memory.peak_allocated is not None
    assert record.memory.peak_reserved is not None
    assert record.memory.peak_reserved >= record.memory.peak_allocated
    assert record.time is not None
    assert record.time.source == "measured"
