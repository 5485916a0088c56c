"""How a size follows from a length: exact functions, found from a few lengths and held to others.

A tensor of a training step has as many elements as a polynomial of degree two at most says, in
the length L and in L rounded up to what a kernel works with (8, 16, ... 128 positions); what an op
reads and writes is a sum of such. A reduction's buffers have as many parts as it has thread blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from math import gcd, lcm

import numpy as np

#: What kernels round lengths up to: attention's blocks, a mask's last dimension.
STEPS = (1, 8, 16, 32, 64, 128)

#: Lengths that a function must be right at beside those that determine it.
HELD_OUT = 2

#: Terms that a function has at most.
MOST_TERMS = 5

#: Terms up to which a function may have squares of roundings.
FEW_TERMS = 4

#: Things that a block of threads takes at most: `_THREADS` times `_LEAST`
#: (`profiler.bench.cuda.reductions`).
MOST_DIVISOR = 8192

#: Roundings (of one step, of one length) that a function has at most, in terms of any kind, and
#: in terms that are no squares of them: the choices would be hundreds of thousands.
MOST_ROUNDINGS = 2
MOST_PLAIN_ROUNDINGS = 3

#: A term: the product of L + offset rounded up to a multiple of step, for each (step, offset).
_Term = tuple[tuple[int, int], ...]

_LENGTH = (1, 0)

#: Relative error of a fit in floating point beyond which no exact one is tried.
_CLOSE = 1e-7

#: Share of a size below which a term is none.
_NOTHING = 1e-10

#: Ratio of singular values below which terms are not told apart.
_DEPENDENT = 1e-12


@dataclass(frozen=True, slots=True)
class SizeFunction:
    """A sum of `coefficients` times `terms`, divided by `divisor`; all are integers."""

    terms: tuple[_Term, ...]
    coefficients: tuple[int, ...]
    divisor: int = 1

    def __call__(self, length: int) -> int:
        """Raises `ValueError` where the size would be no whole number."""
        value = 0
        for term, coefficient in zip(self.terms, self.coefficients, strict=True):
            value += coefficient * _value(term, length)
        size, rest = divmod(value, self.divisor)
        if rest or size < 0:
            raise ValueError(f"no size at length {length}")
        return size


@dataclass(frozen=True, slots=True)
class BlockFunction:
    """`unit` times as many thread blocks as L + `offset` positions need, `most` at most: a block
    takes `divisor` things of which a position has `things`
    (a split reduction's buffers, `profiler.bench.cuda.reductions`)."""

    unit: int
    things: int
    divisor: int
    offset: int
    most: int

    def __call__(self, length: int) -> int:
        """The size at a length."""
        blocks = -(-self.things * (length + self.offset) // self.divisor)
        return self.unit * min(blocks, self.most)


@dataclass(frozen=True, slots=True)
class Together:
    """What an op reads and writes with its buffers: `rest` and `times` as much as `blocks`."""

    rest: SizeFunction
    blocks: BlockFunction
    times: int

    def __call__(self, length: int) -> int:
        """The size at a length."""
        return self.rest(length) + self.times * self.blocks(length)


Function = SizeFunction | BlockFunction | Together


@dataclass(frozen=True, slots=True)
class Undecided:
    """More lengths are needed, this one among them: too few are known, or the functions that fit
    differ there."""

    length: int


def find(
    lengths: Sequence[int],
    sizes: Sequence[int],
    wanted: Sequence[int],
    offsets: tuple[int, ...] = (0,),
    buffers: Sequence[BlockFunction] = (),
) -> Function | Undecided | None:
    """The function that has these sizes at these lengths, None if there is none.

    The fewest terms that fit count, and they must fit `HELD_OUT` lengths more than they have
    coefficients, on more steps of a rounding than they have terms of it. All functions of so many
    terms that fit must agree at the wanted lengths.

    Args:
        offsets: what is added to a length before it is rounded (virtual tokens).
        buffers: what may be part of the sizes, once or, as it is written and read, twice.
    """
    found: Function | Undecided | None = _sum(lengths, sizes, wanted, offsets)
    if isinstance(found, SizeFunction):
        # Roundings can follow numbers of blocks for a while.
        if any(step > 1 for term in found.terms for step, _ in term):
            for block in _blocks_that_fit(lengths, sizes, offsets)[:1]:
                for length in wanted:
                    if _at(found, length) != block(length):
                        return Undecided(length)
        return found
    if found is None:
        found = _blocks(lengths, sizes, wanted, offsets)
    if found is not None:
        return found
    for blocks in buffers:
        for times in (1, 2):
            rest = [size - times * blocks(one) for one, size in zip(lengths, sizes, strict=True)]
            if min(rest) >= 0:
                other = _sum(lengths, rest, wanted, offsets)
                if isinstance(other, SizeFunction):
                    return Together(other, blocks, times)
                if other is not None:
                    return other
    if len(lengths) < MOST_TERMS + HELD_OUT:
        return Undecided(_far(lengths, wanted))
    return None


def _sum(
    lengths: Sequence[int], sizes: Sequence[int], wanted: Sequence[int], offsets: tuple[int, ...]
) -> SizeFunction | Undecided | None:
    """The sum of terms that fits."""
    if len(lengths) <= HELD_OUT:
        return Undecided(_far(lengths, wanted))
    if all(size == sizes[0] for size in sizes):
        return SizeFunction(((),), (sizes[0],))
    for count in range(1, MOST_TERMS + 1):
        fitting = list(_fitting(tuple(lengths), sizes, count, offsets))
        if not fitting:
            continue
        if len(lengths) < count + HELD_OUT:
            return Undecided(_far(lengths, wanted))
        # One that is seen on too few steps of its rounding still speaks against the others.
        first = next((one for one in fitting if _is_seen(one, lengths)), None)
        if first is None:
            return Undecided(_far(lengths, wanted))
        for length in wanted:
            size = _at(first, length)
            if size is None or any(_at(other, length) != size for other in fitting):
                return Undecided(length)
        return first
    return None


def _blocks(
    lengths: Sequence[int], sizes: Sequence[int], wanted: Sequence[int], offsets: tuple[int, ...]
) -> BlockFunction | Undecided | None:
    """The numbers of blocks that are these sizes, on which those that fit agree."""
    fitting = _blocks_that_fit(lengths, sizes, offsets)
    if not fitting:
        return None
    highest = max(sizes)
    below = [length for length, size in zip(lengths, sizes, strict=True) if size < highest]
    if len(below) <= HELD_OUT:
        full = min(length for length in lengths if length not in below)
        before = [length for length in wanted if length < full]
        return Undecided(_far(lengths, before)) if before else None
    for length in wanted:
        if len({function(length) for function in fitting}) > 1:
            return Undecided(length)
    return fitting[0]


def _blocks_that_fit(
    lengths: Sequence[int], sizes: Sequence[int], offsets: tuple[int, ...]
) -> list[BlockFunction]:
    """With the smallest divisor, a power of two, that fits, and the two after it."""
    unit = gcd(*sizes)
    if unit == 0:
        return []
    most = max(sizes) // unit
    for offset in offsets:
        if min(lengths) + offset <= 0:
            continue
        least, highest = Fraction(0), Fraction(most)  # things a divisor: above, and up to
        for length, size in zip(lengths, sizes, strict=True):
            count = size // unit
            least = max(least, Fraction(count - 1, length + offset))
            if count < most:
                highest = min(highest, Fraction(count, length + offset))
        if least >= highest:
            continue
        divisor = 1
        while divisor <= MOST_DIVISOR and Fraction(int(highest * divisor), divisor) <= least:
            divisor *= 2
        if divisor <= MOST_DIVISOR:
            return [
                BlockFunction(unit, things, finer, offset, most)
                for finer in (divisor, 2 * divisor, 4 * divisor)
                for things in range(int(highest * finer), int(least * finer), -1)
            ]
    return []


def _far(lengths: Sequence[int], wanted: Sequence[int]) -> int:
    """The wanted length that is furthest from those known."""
    return max(wanted, key=lambda one: min((abs(one - other) for other in lengths), default=0))


def _fitting(
    lengths: tuple[int, ...], sizes: Sequence[int], count: int, offsets: tuple[int, ...]
) -> Iterator[SizeFunction]:
    """The functions of `count` terms that have these sizes."""
    if len(lengths) < count:
        return
    target = np.asarray(sizes, dtype=np.float64)
    choices, matrices, inverses, rounds = _bases(lengths, count, offsets)
    coefficients = inverses @ target
    errors = np.abs(matrices @ coefficients[..., None] - target[:, None]).max(axis=(1, 2))
    largest = np.abs(target).max()
    # What `_exact` would refuse, which takes a thousand times as long: fewer terms, and a rounding
    # that saves.
    shares = np.abs(coefficients) * np.abs(matrices).max(axis=1)
    has_all = (shares > _NOTHING * largest).all(axis=1)
    saves = (rounds & (coefficients < 0) & (shares > _CLOSE * largest)).any(axis=1)
    for place in np.flatnonzero((errors <= _CLOSE * largest) & has_all & ~saves):
        function = _exact(choices[place], lengths, sizes)
        if function is not None and all(
            _at(function, length) == size for length, size in zip(lengths, sizes, strict=True)
        ):
            yield function


_Matrices = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_Flags = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@lru_cache(maxsize=16)
def _choices(
    count: int, offsets: tuple[int, ...]
) -> tuple[list[_Term], np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """The terms that there are, and the places of those that a function of so many may have.

    A function is of the length plus one offset, and the roundings of that: what is a square of the
    sum takes three terms in the length alone.
    """
    places: dict[_Term, int] = {}

    def place(*term: tuple[int, int]) -> int:
        return places.setdefault(term, len(places))

    chosen: set[tuple[int, ...]] = set()
    for offset in offsets:
        whole = (1, offset)
        among = [place(), place(whole), place(whole, whole)]
        if whole != _LENGTH:
            among.append(place(_LENGTH, whole))
        of_it = [(step, offset) for step in STEPS[1:]]
        chosen.update(combinations(sorted(among), count))
        if count <= FEW_TERMS:
            for some in combinations(of_it, MOST_ROUNDINGS):
                more = {at for one in some for at in _with_rounding(one, place)}
                chosen.update(combinations(sorted({*among, *more}), count))
        for some in combinations(of_it, MOST_PLAIN_ROUNDINGS):
            more = {at for one in some for at in (place(one), place(whole, one))}
            chosen.update(combinations(sorted({*among, *more}), count))
    return list(places), np.array(sorted(chosen), dtype=np.int64)


def _with_rounding(one: tuple[int, int], place: Callable[..., int]) -> list[int]:
    """The terms with one rounding: alone, with the length, with what is rounded, squared."""
    whole = (1, one[1])
    return [place(one), place(_LENGTH, one), place(whole, one), place(one, one)]


@lru_cache(maxsize=8)
def _bases(
    lengths: tuple[int, ...], count: int, offsets: tuple[int, ...]
) -> tuple[list[tuple[_Term, ...]], _Matrices, _Matrices, _Flags]:
    """Choices of terms that are independent at these lengths, their values (choice, length, term),
    how to fit them, and which terms are rounded."""
    terms, chosen = _choices(count, offsets)
    values = np.array([[_value(term, length) for term in terms] for length in lengths], dtype=float)
    matrices = values[:, chosen].transpose(1, 0, 2)
    scale = np.abs(matrices).max(axis=1, keepdims=True)
    singular = np.linalg.svd(matrices / scale, compute_uv=False)
    independent = singular[:, -1] > _DEPENDENT * singular[:, 0]
    matrices, scale = matrices[independent], scale[independent]
    inverses = np.linalg.pinv(matrices / scale) / scale.transpose(0, 2, 1)
    choices = [tuple(terms[place] for place in row) for row in chosen[independent]]
    rounded = np.array([any(step > 1 for step, _ in term) for term in terms])
    return choices, matrices, inverses, rounded[chosen[independent]]


def _exact(
    terms: tuple[_Term, ...], lengths: Sequence[int], sizes: Sequence[int]
) -> SizeFunction | None:
    """The coefficients, by Gaussian elimination over the lengths in turn."""
    rows: list[list[Fraction]] = []
    count = len(terms)
    for length, size in zip(lengths, sizes, strict=True):
        row = [Fraction(_value(term, length)) for term in terms] + [Fraction(size)]
        for pivot, done in enumerate(rows):
            if row[pivot]:
                row = [one - row[pivot] * other for one, other in zip(row, done, strict=True)]
        place = len(rows)
        if place == count:
            break
        column = next((at for at in range(place, count) if row[at]), None)
        if column is None:
            continue
        if column != place:  # keep the pivots in order
            order = list(range(count))
            order[place], order[column] = order[column], order[place]
            terms = tuple(terms[at] for at in order)
            rows = [[done[at] for at in order] + [done[-1]] for done in rows]
            row = [row[at] for at in order] + [row[-1]]
        row = [value / row[place] for value in row]
        rows.append(row)
    if len(rows) < count:
        return None
    values = [Fraction(0)] * count
    for place in range(count - 1, -1, -1):
        known = sum((rows[place][at] * values[at] for at in range(place + 1, count)), Fraction(0))
        values[place] = rows[place][-1] - known
    divisor = lcm(*(value.denominator for value in values))
    if not all(values):
        return None  # it has fewer terms
    for term, value in zip(terms, values, strict=True):
        if value < 0 and any(step > 1 for step, _ in term):
            return None  # nothing is saved by rounding up
    return SizeFunction(terms, tuple(int(value * divisor) for value in values), divisor)


def _is_seen(function: SizeFunction, lengths: Sequence[int]) -> bool:
    """Whether the lengths reach more multiples of each step than the function has terms of it."""
    for factor in {factor for term in function.terms for factor in term if factor[0] > 1}:
        terms = sum(factor in term for term in function.terms)
        if len({_value((factor,), length) for length in lengths}) <= terms:
            return False
    return True


def _at(function: SizeFunction, length: int) -> int | None:
    try:
        return function(length)
    except ValueError:
        return None


def _value(term: _Term, length: int) -> int:
    value = 1
    for step, offset in term:
        value *= -(-(length + offset) // step) * step
    return value
