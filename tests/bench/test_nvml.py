from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from profiler.bench.nvml import Reading, Sampler


class Card:
    """A stand-in for pynvml with one card, whose clock the test turns."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, lacks: tuple[str, ...] = ()) -> None:
        self.now = 100.0
        self.watts = 50.0
        self.joules = 7e5
        self.used = 2**30
        self.own: int | None = 2**29
        self.sm_clock = 1980
        self.reasons = 0
        self.lacks = lacks
        self.opened = 0
        self.asked: list[str] = []
        self.sampled = threading.Event()

    def clock(self) -> float:
        return self.now

    def run(self, seconds: float, watts: float) -> None:
        """Time goes on at a new power, reached at once and kept."""
        self.watts = watts
        self.now += seconds
        self.joules += seconds * watts

    def __getattr__(self, name: str) -> Any:
        if name in self.lacks:
            raise self.NVMLError(f"{name}: Not Supported")
        return {
            "nvmlInit": self._init,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetHandleByIndex": lambda index: self._handle(str(index)),
            "nvmlDeviceGetHandleByUUID": self._handle,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: int(self.joules * 1e3),
            "nvmlDeviceGetPowerUsage": self._power,
            "nvmlDeviceGetClockInfo": lambda handle, kind: {1: self.sm_clock, 2: 2619}[kind],
            "nvmlDeviceGetTemperature": lambda handle, sensor: {0: 41}[sensor],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: self.reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: self.reasons,
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=self.used),
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
                SimpleNamespace(pid=1, usedGpuMemory=2**40),
                SimpleNamespace(pid=os.getpid(), usedGpuMemory=self.own),
            ],
        }[name]

    def _init(self) -> None:
        self.opened += 1

    def _shutdown(self) -> None:
        self.opened -= 1

    def _handle(self, name: str) -> str:
        self.asked.append(name)
        return name

    def _power(self, handle: str) -> int:
        self.sampled.set()
        return int(self.watts * 1e3)


STATE = (
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)


def reading(card: Card, *, seconds: float = 4.0, watts: float = 50.0) -> Reading | None:
    """Samples at the start and at the end only."""
    with Sampler(interval=3600, library=card, clock=card.clock) as sampler:
        card.run(seconds, watts)
    return sampler.reading


def test_energy_is_the_difference_of_the_counter() -> None:
    found = reading(Card(), seconds=4.0, watts=300.0)
    assert found is not None
    assert found.source == "energy counter"
    assert found.joules == pytest.approx(1200.0)
    energy = found.energy(steps=8)
    assert energy is not None
    assert energy.joules == pytest.approx(150.0)
    assert energy.mean_watts == pytest.approx(300.0)


def test_without_a_counter_it_is_the_integral_of_the_power() -> None:
    found = reading(Card(lacks=("nvmlDeviceGetTotalEnergyConsumption",)), seconds=4.0, watts=150.0)
    assert found is not None
    assert found.source == "power samples"
    assert found.joules == pytest.approx(4.0 * (50.0 + 150.0) / 2)


def test_a_counter_that_stands_still_is_not_believed() -> None:
    card = Card()
    with Sampler(interval=3600, library=card, clock=card.clock) as sampler:
        card.now += 2.0
    assert sampler.reading is not None
    assert sampler.reading.source == "power samples"
    assert sampler.reading.joules == pytest.approx(100.0)


def test_the_power_between_start_and_end_is_seen() -> None:
    card = Card(lacks=("nvmlDeviceGetTotalEnergyConsumption",))
    with Sampler(interval=1e-4, library=card, clock=card.clock) as sampler:
        for watts in (400.0, 400.0, 50.0):
            card.run(1.0, watts)
            card.sampled.clear()
            assert card.sampled.wait(60)
    assert sampler.reading is not None
    assert sampler.reading.joules is not None
    assert sampler.reading.joules > 1.5 * 3.0 * 50.0


def test_memory_is_the_most_that_was_seen() -> None:
    card = Card()
    with Sampler(interval=3600, library=card, clock=card.clock) as sampler:
        card.used, card.own = 5 * 2**30, 3 * 2**30
    assert sampler.reading is not None
    assert sampler.reading.device_memory == 5 * 2**30
    assert sampler.reading.process_memory == 3 * 2**30


def test_what_the_driver_does_not_say_of_a_process_is_unknown() -> None:
    card = Card()
    card.own = None
    found = reading(card)
    assert found is not None
    assert found.process_memory is None
    assert found.device_memory is not None


@pytest.mark.parametrize("lacking", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_without_a_driver_or_a_card_there_is_no_reading(lacking: str) -> None:
    card = Card(lacks=(lacking,))
    assert reading(card) is None
    assert card.opened == 0


def test_without_any_figure_there_is_a_reading_of_nothing() -> None:
    card = Card(
        lacks=(
            "nvmlDeviceGetTotalEnergyConsumption",
            "nvmlDeviceGetPowerUsage",
            "nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetComputeRunningProcesses",
            *STATE,
        )
    )
    found = reading(card)
    assert found == Reading(
        seconds=4.0, joules=None, source=None, device_memory=None, process_memory=None
    )
    assert found.energy(steps=1) is None
    assert found.state() is None


def test_clocks_temperature_and_what_limits_them_are_kept() -> None:
    card = Card()
    with Sampler(interval=3600, library=card, clock=card.clock) as sampler:
        card.run(1.0, 700.0)
        card.sm_clock, card.reasons = 1200, 0x4 | 0x1
    assert sampler.reading is not None
    state = sampler.reading.state()
    assert state is not None
    assert state.samples == 2
    assert state.sm_clock_mhz == {"min": 1200, "median": 1590, "max": 1980}
    assert state.memory_clock_mhz == {"min": 2619, "median": 2619, "max": 2619}
    assert state.temperature_celsius == {"min": 41, "median": 41, "max": 41}
    assert state.power_watts is not None
    assert state.power_watts["max"] == 700
    assert state.memory_bytes is not None
    assert state.memory_bytes["max"] == card.used
    assert state.limited == 0.5


def test_an_idle_clock_is_not_a_limited_one() -> None:
    card = Card()
    card.reasons = 0x1
    found = reading(card)
    assert found is not None
    state = found.state()
    assert state is not None
    assert state.limited == 0


def test_an_older_driver_is_asked_by_the_older_name() -> None:
    found = reading(Card(lacks=("nvmlDeviceGetCurrentClocksEventReasons",)))
    assert found is not None
    state = found.state()
    assert state is not None
    assert state.limited == 0


@pytest.mark.parametrize("lacking", STATE[:2])
def test_what_a_card_does_not_tell_is_null(lacking: str) -> None:
    found = reading(Card(lacks=(lacking,)))
    assert found is not None
    assert found.joules is not None
    state = found.state()
    assert state is not None
    gone = state.sm_clock_mhz if lacking == "nvmlDeviceGetClockInfo" else state.temperature_celsius
    assert gone is None
    assert state.power_watts is not None


def test_nothing_is_asked_that_sets_anything() -> None:
    asked: set[str] = set()

    class Watching(Card):
        def __getattr__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattr__(name)

    assert reading(Watching()) is not None
    assert asked
    assert all(name.startswith("nvmlDeviceGet") for name in asked - {"nvmlInit", "nvmlShutdown"})


def test_the_device_is_found_by_the_name_that_torch_gives_it() -> None:
    card = Card()
    for name in ("1234", "GPU-1234"):
        with Sampler(name, interval=3600, library=card, clock=card.clock):
            pass
    assert card.asked == ["GPU-1234"] * 2


def test_nothing_is_left_open_also_after_an_error() -> None:
    card = Card()
    threads = threading.active_count()
    with pytest.raises(KeyError), Sampler(library=card, clock=card.clock):
        raise KeyError
    assert card.opened == 0
    assert threading.active_count() == threads


def test_the_real_library_on_this_machine_is_no_error() -> None:
    with Sampler(interval=3600) as sampler:
        pass
    assert sampler.reading is None or sampler.reading.seconds >= 0
