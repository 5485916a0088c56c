"""The clock of a CUDA device, against a stand-in for `torch.cuda`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from profiler.integrations.clocks import CudaClock


class Cuda:
    """A device whose stream is `behind` events behind the host, and whose time the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.recorded = 0
        self.behind = 0
        self.peak = 0

    def event(self, enable_timing: bool) -> Any:
        cuda = self

        class Event:
            def record(self, stream: Any) -> None:
                cuda.recorded += 1
                self.number, self.at = cuda.recorded, cuda.now

            def query(self) -> bool:
                return self.number <= cuda.recorded - cuda.behind

            def elapsed_time(self, other: Any) -> float:
                return float(other.at - self.at) * 1e3

        return Event()

    def synchronize(self, device: Any) -> None:
        self.behind = 0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    stand_in = Cuda()
    for name, function in {
        "Event": stand_in.event,
        "synchronize": stand_in.synchronize,
        "current_stream": lambda device: None,
        "max_memory_allocated": lambda device: stand_in.peak,
        "max_memory_reserved": lambda device: 2 * stand_in.peak,
        "memory_allocated": lambda device: 3,
        "reset_peak_memory_stats": lambda device: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return stand_in


def run(clock: CudaClock, cuda: Cuda, seconds: dict[str, float], peaks: dict[str, int]) -> None:
    """A step, from its forward that has begun."""
    for name, after in (("forward", "backward"), ("backward", "optimizer"), ("optimizer", "")):
        cuda.now += seconds[name]
        cuda.peak = peaks[name]
        if after:
            clock.phase(after)
        else:
            clock.end_step()


def test_steps_are_timed_however_far_the_device_is_behind(cuda: Cuda) -> None:
    seconds = [{"forward": 1.0, "backward": 2.0, "optimizer": 4.0 + index} for index in range(4)]
    peaks = {"forward": 10, "backward": 30, "optimizer": 20}
    for behind in (0, 2, 100):
        clock = CudaClock(torch.device("cuda"))
        cuda.behind = behind
        clock.phase("forward")
        for step in seconds:
            cuda.behind = behind
            run(clock, cuda, step, peaks)
        clock.close()
        assert list(clock.steps) == seconds


def test_what_runs_between_steps_is_left_out(cuda: Cuda) -> None:
    clock = CudaClock(torch.device("cuda"))
    seconds = {"forward": 1.0, "backward": 2.0, "optimizer": 4.0}
    clock.phase("forward")
    for _ in range(3):
        cuda.now += 100.0  # an evaluation
        cuda.behind = 5
        clock.restart("forward")
        run(clock, cuda, seconds, dict.fromkeys(seconds, 1))
    clock.close()
    assert list(clock.steps) == [seconds] * 3


def test_peaks_are_those_of_the_steps_after_the_first(cuda: Cuda) -> None:
    clock = CudaClock(torch.device("cuda"))
    seconds = dict.fromkeys(("forward", "backward", "optimizer"), 1.0)
    clock.phase("forward")
    run(clock, cuda, seconds, dict.fromkeys(seconds, 1000))
    assert clock.memory().peak_allocated is None
    run(clock, cuda, seconds, {"forward": 10, "backward": 30, "optimizer": 20})
    memory = clock.memory()
    assert memory.phases == {"forward": 10, "backward": 30, "optimizer": 20}
    assert (memory.peak_allocated, memory.peak_reserved) == (30, 60)
    assert memory.after_step_allocated == 3
