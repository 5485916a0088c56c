"""Times and memory of a running loop's phases, taken without holding it up."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import Any

import torch

from profiler.record import Memory, Time
from profiler.trace import PHASES

#: Steps whose times are kept, the latest.
KEPT_STEPS = 10_000


class Clock:
    """Seconds of each step's phases on a CPU.

    Attributes:
        steps: of each finished step, the seconds of each phase.
    """

    def __init__(self) -> None:
        self.steps: deque[dict[str, float]] = deque(maxlen=KEPT_STEPS)
        self._phase = ""
        self._since = 0.0
        self._current = dict.fromkeys(PHASES, 0.0)

    def restart(self, phase: str) -> None:
        """A step begins now; what ran since the last one is nobody's."""
        self._phase = ""
        self._current = dict.fromkeys(PHASES, 0.0)
        self.phase(phase)

    def phase(self, name: str) -> None:
        now = time.perf_counter()
        if self._phase:
            self._current[self._phase] += now - self._since
        self._phase, self._since = name, now

    def end_step(self) -> None:
        """A step is over; the next one's forward begins."""
        self.phase("forward")
        self.steps.append(self._current)
        self._current = dict.fromkeys(PHASES, 0.0)

    def close(self) -> None:
        """The loop is over."""

    def memory(self) -> Memory:
        """Nothing: a CPU counts no bytes of tensors."""
        return Memory()


class CudaClock(Clock):
    """As `Clock`, by events on the device's stream, with the allocator's peaks of each phase.

    The allocator's peak statistics are reset at each phase. No GPU has run this.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._events: deque[tuple[str, Any, bool]] = deque()  # the last: whether it ends a step
        self._ends = False
        self._finished = 0
        self._peaks = dict.fromkeys(PHASES, 0)
        self._reserved = 0
        self._after = 0

    def restart(self, phase: str) -> None:
        if self._events:
            _, event, ends = self._events.pop()
            self._events.append(("", event, ends))
        self._phase = ""
        self.phase(phase)

    def phase(self, name: str) -> None:
        if self._phase and self._finished:  # the first step warms up
            peak = torch.cuda.max_memory_allocated(self._device)
            self._peaks[self._phase] = max(self._peaks[self._phase], peak)
            reserved = torch.cuda.max_memory_reserved(self._device)
            self._reserved = max(self._reserved, reserved)
        torch.cuda.reset_peak_memory_stats(self._device)
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._events.append((name, event, self._ends))
        self._phase = name

    def end_step(self) -> None:
        self._ends = True
        self.phase("forward")
        self._ends = False
        self._finished += 1
        self._after = torch.cuda.memory_allocated(self._device)
        self._drain(wait=False)

    def close(self) -> None:
        self._drain(wait=True)

    def memory(self) -> Memory:
        """The allocator's peaks of the steps after the first."""
        if self._finished < 2:
            return Memory()
        return Memory(
            peak_allocated=max(self._peaks.values()),
            peak_reserved=self._reserved,
            after_step_allocated=self._after,
            phases=dict(self._peaks),
        )

    def _drain(self, *, wait: bool) -> None:
        """Read the times between events that the device has passed."""
        if wait:
            torch.cuda.synchronize(self._device)
        while len(self._events) > 1 and self._events[1][1].query():
            name, event, _ = self._events.popleft()
            _, after, ends = self._events[0]
            if name:
                self._current[name] += event.elapsed_time(after) / 1e3
            if ends:
                self.steps.append(self._current)
                self._current = dict.fromkeys(PHASES, 0.0)


def measured_time(steps: list[dict[str, float]], tokens: float) -> Time:
    """Medians of steps, and the spread of their sums.

    Args:
        tokens: positions that a step trains on.
    """
    totals = sorted(sum(step.values()) for step in steps)
    median = statistics.median(totals)
    return Time(
        source="measured",
        step=median,
        phases={name: statistics.median(step[name] for step in steps) for name in PHASES},
        tokens_per_second=tokens / median if median else 0.0,
        spread={"p20": _quantile(totals, 2), "median": median, "p80": _quantile(totals, 8)},
    )


def _quantile(ordered: list[float], tenths: int) -> float:
    if len(ordered) == 1:
        return ordered[0]
    return statistics.quantiles(ordered, n=10, method="inclusive")[tenths - 1]
