"""How a call is timed on a CPU: `torch.utils.benchmark`, on the thread's own clock where it can be.

With one thread the clock is the process's processor time. On an idle machine it runs as the wall's
clock does, and elsewhere it leaves out the time in which other programs had the core, which would
be taken for the kernel's. With more threads it would add them up, so the wall's clock is taken.

Of the repetitions the median stands, of a kernel's and of a step's alike: a step is as long as its
kernels usually are. The least of each would be the luck of one call, and a step, made of thousands
of calls, never has it of all; the more else runs on the machine, the wider the two are apart.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from profiler.trace import PHASES

#: What a profile says of it.
STATISTIC = "median"

#: Into how many blocks of calls the time of a figure is split.
BLOCKS = 5
#: Seconds of the shortest call there is.
_SHORTEST = 1e-7


class Stopwatch:
    """Times calls with `threads` threads, each for about `least` seconds."""

    def __init__(self, *, threads: int, least: float) -> None:
        self.threads = threads
        self.least = least
        self.clock = time.process_time if threads == 1 else time.perf_counter

    def seconds(self, call: Callable[[], Any], *, least: float | None = None) -> float:
        """Seconds of one call, to four digits."""
        return float(f"{self._seconds(call, self.least if least is None else least):.4g}")

    def _seconds(self, call: Callable[[], Any], least: float) -> float:
        from torch.utils.benchmark import Timer

        timer = Timer("call()", globals={"call": call}, timer=self.clock, num_threads=self.threads)
        once = timer.timeit(1).mean
        if once > least / 2:  # it takes long: few repetitions will do
            return statistics.median([once, timer.timeit(1).mean])
        number = max(1, round(least / BLOCKS / max(once, _SHORTEST)))
        return statistics.median(timer.timeit(number).mean for _ in range(BLOCKS))


class Phases:
    """A step's probe (`profiler.subject.workloads.train.Probe`) that times the phases of bare steps
    by a stopwatch's clock.

    Attributes:
        steps: seconds of each phase of each step; `elapsed`: of each step by the wall's clock.
    """

    def __init__(self, watch: Stopwatch) -> None:
        self.steps: list[dict[str, float]] = []
        self.elapsed: list[float] = []
        self._clock = watch.clock
        self._current = dict.fromkeys(PHASES, 0.0)
        self._phase = ""
        self._since = 0.0
        self._began = 0.0

    def phase(self, name: str) -> None:
        now = self._clock()
        if self._phase:
            self._current[self._phase] += now - self._since
        else:
            self._began = time.perf_counter()
        self._phase, self._since = name, now

    def forward_done(self, outputs: Any) -> None:
        pass

    def backward_done(self) -> None:
        pass

    def optimizer_done(self) -> None:
        pass

    def finish(self) -> None:
        """The step is over."""
        self.phase("")
        self.elapsed.append(time.perf_counter() - self._began)
        self.steps.append(self._current)
        self._current = dict.fromkeys(PHASES, 0.0)

    def seconds(self, phase: str) -> list[float]:
        """Of each step."""
        return [step[phase] for step in self.steps]
