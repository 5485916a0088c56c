"""How a size follows from a length: exact functions, found from a few lengths and held to others.

A tensor of a training step has as many elements as a polynomial of degree two at most says, in
the length L and in L rounded up to what a kernel works with (8, 16, ... 128 positions); what an op
reads and writes is a sum of such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from math import lcm

import numpy as np

#: What kernels round lengths up to: attention's blocks, a mask's last dimension.
STEPS = (1, 8, 16, 32, 64, 128)

#: Lengths that a function must be right at beside those that determine it.
HELD_OUT = 2

#: Terms that a function has at most.
MOST_TERMS = 4

#: Roundings (of one step, of one length) that a function may have where there are many: the choices
#: of four terms would be hundreds of thousands.
MOST_ROUNDINGS = 2
MANY = 10

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
class Undecided:
    """More lengths are needed, this one among them: too few are known, or the functions that fit
    differ there."""

    length: int


def find(
    lengths: Sequence[int],
    sizes: Sequence[int],
    wanted: Sequence[int],
    offsets: tuple[int, ...] = (0,),
) -> SizeFunction | Undecided | None:
    """The function that has these sizes at these lengths, None if there is none.

    The fewest terms that fit count, and they must fit `HELD_OUT` lengths more than they have
    coefficients, on more steps of a rounding than they have terms of it. All functions of so many
    terms that fit must agree at the wanted lengths.

    Args:
        offsets: what is added to a length before it is rounded (virtual tokens).
    """
    if len(lengths) <= HELD_OUT:
        return Undecided(wanted[0])
    if all(size == sizes[0] for size in sizes):
        return SizeFunction(((),), (sizes[0],))
    for count in range(1, MOST_TERMS + 1):
        fitting = list(_fitting(tuple(lengths), sizes, count, offsets))
        if not fitting:
            continue
        if len(lengths) < count + HELD_OUT:
            return Undecided(wanted[0])
        # One that is seen on too few steps of its rounding still speaks against the others.
        first = next((one for one in fitting if _is_seen(one, lengths)), None)
        if first is None:
            return Undecided(wanted[0])
        for length in wanted:
            size = _at(first, length)
            if size is None or any(_at(other, length) != size for other in fitting):
                return Undecided(length)
        return first
    if len(lengths) < MOST_TERMS + HELD_OUT:
        return Undecided(wanted[0])
    return None


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
    """The terms that there are, and the places of those that a function of so many may have."""
    rounded = [(step, offset) for step in STEPS[1:] for offset in offsets]
    plain: list[_Term] = [(), (_LENGTH,), (_LENGTH, _LENGTH)]
    terms = list(plain)
    places: dict[tuple[int, int], list[int]] = {}
    for one in rounded:
        places[one] = list(range(len(terms), len(terms) + 3))
        terms += [(one,), (_LENGTH, one), (one, one)]
    among = list(range(len(plain)))
    chosen = set(combinations(among, count))
    most = min(MOST_TERMS if len(rounded) <= MANY else MOST_ROUNDINGS, len(rounded))
    for some in combinations(rounded, most):
        chosen.update(combinations(among + [at for one in some for at in places[one]], count))
    return terms, np.array(sorted(chosen), dtype=np.int64)


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
