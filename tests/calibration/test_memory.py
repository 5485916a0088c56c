"""Memory that a machine is made to have before anything is timed."""

from __future__ import annotations

import mmap

import pytest
import torch

from profiler.calibration import memory
from profiler.hardware.host_memory import Available, HostMemory

AVAILABLE = 64 * mmap.PAGESIZE


def test_a_share_of_what_is_available_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.Tensor] = []
    mapped = memory._mapped

    def keep(nbytes: int) -> torch.Tensor:
        taken.append(mapped(nbytes))
        return taken[-1]

    available = Available(AVAILABLE, AVAILABLE, "on this machine")
    monkeypatch.setattr(HostMemory, "available", lambda self: available)
    monkeypatch.setattr(memory, "_mapped", keep)
    memory.back(0.25)
    assert [block.numel() for block in taken] == [AVAILABLE // 4]
    assert int(taken[0][:: mmap.PAGESIZE].sum()) == AVAILABLE // 4 // mmap.PAGESIZE
    memory.back(0.0)
    assert len(taken) == 1
