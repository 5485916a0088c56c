"""Memory of a step on a CUDA device, by its allocator's own statistics.

No GPU has run this. It is tested against a stand-in for `torch.cuda`.
"""

from __future__ import annotations

from typing import Any

import torch

from profiler.record import Memory
from profiler.subject.workloads.train import TrainStep, Unwatched
from profiler.trace import PHASES

#: What is kept of `torch.cuda.memory_stats` beside the peaks.
KEPT = ("inactive_split_bytes.all.peak", "num_alloc_retries", "num_ooms", "segment.all.peak")


class AllocatorPeaks(Unwatched):
    """A probe: the most that was allocated and reserved in each phase of a bare step."""

    def __init__(self) -> None:
        self.phases = dict.fromkeys(PHASES, 0)
        self.reserved = 0
        self._phase = ""

    def phase(self, name: str) -> None:
        torch.cuda.synchronize()
        if self._phase:
            peak = torch.cuda.max_memory_allocated()
            self.phases[self._phase] = max(self.phases[self._phase], peak)
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
        torch.cuda.reset_peak_memory_stats()
        self._phase = name


def measure(step: TrainStep, tracked: Memory, device_total: int | None) -> Memory:
    """The memory of one bare step, with the tracker's breakdown of what it could see.

    Args:
        tracked: the same step's memory by the storage tracker, in storage bytes.
        device_total: what the driver holds for the process (NVML), None where it does not say.

    Returns:
        Peaks are the allocator's. `at_peak` is the tracker's, and what the allocator holds beside
        that (rounding, what kernels take for themselves) counts as workspaces.
    """
    probe = AllocatorPeaks()
    step(probe)
    probe.phase("")
    peak = max(probe.phases.values())
    seen = sum(tracked.at_peak.values())
    at_peak = dict(tracked.at_peak)
    at_peak["workspaces"] = at_peak.get("workspaces", 0) + peak - seen
    statistics = torch.cuda.memory_stats()
    changes: dict[str, Any] = {
        "peak_allocated": peak,
        "phases": probe.phases,
        "at_peak": at_peak,
        "after_step_allocated": torch.cuda.memory_allocated(),
        "peak_reserved": probe.reserved,
        "device_total": device_total,
        "cuda_allocator": {key: statistics[key] for key in KEPT if key in statistics},
        "cuda_segments": [
            {key: segment[key] for key in ("total_size", "allocated_size", "active_size")}
            for segment in torch.cuda.memory_snapshot()
        ],
    }
    return tracked.model_copy(update=changes)
