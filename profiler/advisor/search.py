"""The largest number that fits, found in few trials, each of which costs seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one number: whether it fits, and the bytes of the device that it needs."""

    fits: bool
    needed: int


@dataclass(frozen=True, slots=True)
class Largest:
    """`number` fits and `number + 1` does not; 0 if not even 1 fits. `capped`: the limit fits, and
    nothing beyond it was tried."""

    number: int
    trials: dict[int, Trial]
    capped: bool = False


def largest(trial: Callable[[int], Trial], capacity: int, *, limit: int = 4096) -> Largest:
    """Search for the largest number from 1 on that fits.

    What is needed grows nearly by a constant with each number, so a line through the two trials
    nearest to the border says where to look next. Fragmentation and freed caches make that a guess:
    the answer is what was tried, on both sides of the border.

    Args:
        trial: tries one number; one that does not fit is taken to say the same of larger ones.
        capacity: bytes of the device.
        limit: the largest number that is tried.
    """
    trials: dict[int, Trial] = {}

    def fits(number: int) -> bool:
        trials[number] = trial(number)
        return trials[number].fits

    if not fits(1):
        return Largest(0, trials)
    low, high = 1, limit + 1  # low fits; high does not, or lies beyond the limit
    step = 1
    while high - low > 1:
        guess = _guess(trials, low, capacity)
        if guess <= low:  # by the line low is the answer; farther each time that it was not
            guess, step = low + step, 2 * step
        guess = min(guess, high - 1)
        if fits(guess):
            low = guess
        else:
            high = guess
    return Largest(low, trials, capped=high > limit)


def _guess(trials: dict[int, Trial], low: int, capacity: int) -> int:
    """Where the line through the two trials nearest to the border meets the capacity."""
    if len(trials) == 1:
        return low + 1  # a slope needs two
    first, second = sorted(sorted(trials, key=lambda number: abs(number - low - 0.5))[:2])
    slope = (trials[second].needed - trials[first].needed) / (second - first)
    if slope <= 0:
        return 2 * low
    return int(first + (capacity - trials[first].needed) / slope)
