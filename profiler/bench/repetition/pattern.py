"""How a step grows with depth: found in three depths, and proven on them.

The tokens of each depth must be those of the depth before with the same stretches inserted at the
same places, once more each time (`Pattern.stretches`). Then each token has a rule for the layer
that it is of, the block that it means and its sizes: a number, or one that grows evenly with the
depth or from repetition to repetition. Each rule has fewer free numbers than it was observed with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.stream import Stream

#: Tokens that must go on alike after an insertion, tried in turn: long stretches are told from
#: short ones by many, and between the lists that an op takes there may be few.
_AHEAD = (1, 4, 16, 64)


@dataclass(slots=True)
class Rule:
    """A token as a function of how often stretches were inserted (n), and of the repetition r.

    Attributes:
        loose: what it says (`Stream.loose`).
        label: of layer `label[0] + label[1] * n + label[2] * r`; None outside of layers.
        newest: whether the rank counts from the newest block.
        rank: of the block, in the same way.
        numbers: each as (constant, factor of n); in a stretch they are constant.
    """

    loose: int
    label: tuple[int, int, int] | None
    newest: bool
    rank: tuple[int, int, int]
    numbers: tuple[tuple[int, int], ...]


@dataclass
class Pattern:
    """A step of any depth: `fixed[0]`, `stretches[0]` n times, `fixed[1]`, `stretches[1]`, ..."""

    fixed: list[list[Rule]]
    stretches: list[list[Rule]]


def find(streams: Sequence[Stream], period: int) -> Pattern:
    """The pattern of three depths that are `period` layers apart.

    Raises:
        NotPeriodicError: there is none.
    """
    assert len(streams) == 3
    if len({len(stream.starts) for stream in streams}) > 1:
        raise NotPeriodicError("a deeper model has other phases")
    keys = _comparable(streams)
    bounds = [
        pairwise([0, *stream.starts, len(key)]) for stream, key in zip(streams, keys, strict=True)
    ]
    pattern = Pattern([], [])
    for phase in zip(*bounds, strict=True):
        part = _phase(streams, keys, phase, period)
        pattern.fixed += part.fixed
        pattern.stretches += [*part.stretches, []]  # what is between two phases is nothing
    return pattern


def _phase(
    streams: Sequence[Stream],
    keys: Sequence[list[int]],
    phase: Sequence[tuple[int, int]],
    period: int,
) -> Pattern:
    """The pattern of a phase, given by its start and end at each depth."""
    parts = [key[start:end] for key, (start, end) in zip(keys, phase, strict=True)]
    reasons = []
    for at_once in (True, False):
        for ahead in _AHEAD:
            try:
                places = stretches_of(parts, ahead, at_once=at_once)
                return _rules(streams, phase, parts, places, period)
            except NotPeriodicError as error:
                reasons.append(error)
    raise reasons[0]


def _comparable(streams: Sequence[Stream]) -> list[list[int]]:
    """What is compared of each token: with its numbers, if as many tokens have these at each depth
    as layers would make, else without."""
    counts = [Counter(stream.full) for stream in streams]
    even = {
        full
        for full in counts[2]
        if 0 <= counts[1][full] - counts[0][full] == counts[2][full] - counts[1][full]
    }
    return [
        [
            full if full in even else -1 - loose
            for full, loose in zip(stream.full, stream.loose, strict=True)
        ]
        for stream in streams
    ]


def stretches_of(
    depths: Sequence[Sequence[int]], ahead: int, *, at_once: bool = True
) -> list[tuple[int, int]]:
    """Where tokens of the first depth's are inserted once for the second, and the same once more
    for the third: (place in the first, count). The arguments are as of `insertions`.

    Raises:
        NotPeriodicError: there are no such.
    """
    found, again = (
        insertions(short, long, ahead, at_once=at_once) for short, long in pairwise(depths)
    )
    shifted, moved = [], 0
    for place, count in found:
        moved += count
        shifted.append((place + moved, count))
    if shifted != again:
        raise NotPeriodicError("layers are not inserted at the same places at each depth")
    return found


def insertions(
    short: Sequence[int], long: Sequence[int], ahead: int = 1, *, at_once: bool = True
) -> list[tuple[int, int]]:
    """Where tokens are inserted that make `long` of `short`, and how many: (place in short, count).

    Args:
        ahead: how many tokens must go on alike after an insertion, as far as there are so many.
        at_once: whether all that is missing is inserted in one place as soon as that will do. Two
            lists of layers that follow each other may be taken for one so.

    Raises:
        NotPeriodicError: something else than insertions is needed.
    """
    found: list[tuple[int, int]] = []
    x = y = 0
    while True:
        while x < len(short) and y < len(long) and short[x] == long[y]:
            x, y = x + 1, y + 1
        more = len(long) - y - (len(short) - x)
        if x == len(short):
            return [*found, (x, more)] if more else found
        if at_once and more > 0 and long[y + more :] == short[x:]:
            return [*found, (x, more)]
        wanted = short[x : x + ahead]
        for count in range(1, more + 1):
            if long[y + count] == wanted[0] and long[y + count : y + count + ahead] == wanted:
                found.append((x, count))
                y += count
                break
        else:
            raise NotPeriodicError("a deeper model's step is not a shallower one's with more in it")


def _rules(
    streams: Sequence[Stream],
    phase: Sequence[tuple[int, int]],
    parts: Sequence[list[int]],
    places: list[tuple[int, int]],
    period: int,
) -> Pattern:
    pattern = Pattern([], [])
    first, second, third = (start for start, _ in phase)
    start = moved = 0
    for place, length in [*places, (len(parts[0]), 0)]:
        pattern.fixed.append(
            [
                _fixed(
                    streams,
                    (first + index, second + index + moved, third + index + 2 * moved),
                    period,
                )
                for index in range(start, place)
            ]
        )
        start = place
        if length:
            one, two = place + moved, place + 2 * moved
            again = parts[2][two : two + length], parts[2][two + length : two + 2 * length]
            if not parts[1][one : one + length] == again[0] == again[1]:
                raise NotPeriodicError("what a layer adds differs from layer to layer")
            one, two = one + second, two + third
            pattern.stretches.append(
                [
                    _repeated(streams, (one + index, two + index, two + length + index), period)
                    for index in range(length)
                ]
            )
            moved += length
    return pattern


def _fixed(streams: Sequence[Stream], at: tuple[int, int, int], period: int) -> Rule:
    """The rule of a token that is there once at each depth."""
    labels = [stream.labels[index] for stream, index in zip(streams, at, strict=True)]
    label = None
    if labels[0] is not None:
        factor = _even(labels)
        if factor not in (0, period):
            raise NotPeriodicError("a layer's part of the step is another layer's at another depth")
        label = (labels[0], factor, 0)
    oldest = [stream.oldest[index] for stream, index in zip(streams, at, strict=True)]
    newest = [stream.newest[index] for stream, index in zip(streams, at, strict=True)]
    from_newest = _even(oldest) != 0 and _even(newest) == 0
    ranks = newest if from_newest else oldest
    growth = _even(ranks)
    if growth is None:
        raise NotPeriodicError("which block a step means does not follow from the depth")
    numbers = []
    for values in zip(*(s.numbers[i] for s, i in zip(streams, at, strict=True)), strict=True):
        each = _even(values)
        if each is None:
            raise NotPeriodicError("a size does not grow evenly with the depth")
        numbers.append((values[0], each))
    return Rule(streams[0].loose[at[0]], label, from_newest, (ranks[0], growth, 0), tuple(numbers))


def _even(values: Sequence[int | None]) -> int | None:
    """How much a number grows from depth to depth; None if not evenly."""
    one, two, three = values
    if one is None or two is None or three is None or two - one != three - two:
        return None
    return two - one


def _repeated(streams: Sequence[Stream], at: tuple[int, int, int], period: int) -> Rule:
    """The rule of a token of a stretch, seen at (n, r) = (1, 0), (2, 0) and (2, 1)."""
    where = list(zip((streams[1], streams[2], streams[2]), at, strict=True))
    labels = [stream.labels[index] for stream, index in where]
    label = None
    if labels != [None] * 3:
        label = _linear(labels)
        # From the first layer to the last, from the last to the first, or a certain one.
        ways = ((0, period), (period, -period), (0, 0), (period, 0))
        if label is None or label[1:] not in ways:
            raise NotPeriodicError("a stretch goes through the layers in no order")
    oldest = [stream.oldest[index] for stream, index in where]
    newest = [stream.newest[index] for stream, index in where]
    from_newest = len(set(oldest)) > 1 and len(set(newest)) == 1
    rank = _linear(newest if from_newest else oldest)
    assert rank is not None
    if rank[1] not in (0, -rank[2]) and rank[2]:
        raise NotPeriodicError("which block a stretch means does not follow from its repetition")
    first, *others = (stream.numbers[index] for stream, index in where)
    if others != [first, first]:
        raise NotPeriodicError("sizes differ from layer to layer")
    numbers = tuple((number, 0) for number in first)
    return Rule(streams[1].loose[at[0]], label, from_newest, rank, numbers)


def _linear(values: Sequence[int | None]) -> tuple[int, int, int] | None:
    """(constant, factor of n, factor of r) of numbers at (1, 0), (2, 0) and (2, 1)."""
    one, two, three = values
    if one is None or two is None or three is None:
        return None
    return (2 * one - two, two - one, three - two)
