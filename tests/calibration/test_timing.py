"""What a stopwatch says of calls whose time is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from profiler.calibration.timing import Phases, Stopwatch


class Clock:
    """A clock that calls set forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: Callable[[int], float]) -> Callable[[], None]:
        """A call whose n-th run takes `seconds(n)`."""
        count = 0

        def call() -> None:
            nonlocal count
            self.now += seconds(count)
            count += 1

        return call


@pytest.fixture
def clock() -> Clock:
    return Clock()


def stopwatch(clock: Clock, least: float = 0.01) -> Stopwatch:
    watch = Stopwatch(threads=1, least=least)
    watch.clock = clock
    return watch


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 0.004, 0.02, 3.0])
def test_a_steady_call_takes_what_it_takes(clock: Clock, seconds: float) -> None:
    assert stopwatch(clock).seconds(clock.taking(lambda _: seconds)) == pytest.approx(seconds)


def test_a_disturbance_does_not_show(clock: Clock) -> None:
    call = clock.taking(lambda number: 5.0 if number == 30 else 1e-3)
    assert stopwatch(clock).seconds(call) == pytest.approx(1e-3)


def test_short_calls_are_repeated_for_the_time_that_is_asked_for(clock: Clock) -> None:
    stopwatch(clock, least=0.5).seconds(clock.taking(lambda _: 1e-3))
    assert 0.4 < clock.now < 1.0


def test_one_thread_is_timed_by_the_time_that_it_had() -> None:
    assert Stopwatch(threads=1, least=1.0).clock.__name__ == "process_time"
    assert Stopwatch(threads=2, least=1.0).clock.__name__ == "perf_counter"


def test_phases_of_steps_are_told_apart(clock: Clock) -> None:
    phases = Phases(stopwatch(clock))
    for step in (1, 2):
        for _ in range(2):  # passes of an accumulation
            phases.phase("forward")
            clock.now += step
            phases.phase("backward")
            clock.now += 10 * step
        phases.phase("optimizer")
        clock.now += 100 * step
        phases.finish()
        clock.now += 1000  # between two steps
    assert phases.seconds("forward") == [2, 4]
    assert phases.seconds("backward") == [20, 40]
    assert phases.seconds("optimizer") == [100, 200]
