"""Functions of a length, found from a few and right at the others, or not found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.size_functions import (
    HELD_OUT,
    BlockFunction,
    Function,
    SizeFunction,
    Together,
    Undecided,
    find,
)

KNOWN = [31, 50, 72, 84, 96, 101, 131, 192, 256, 300]
WANTED = sorted(set(range(31, 301)) - set(KNOWN))


def up(length: int, step: int) -> int:
    return -(-length // step) * step


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 300),
    st.sampled_from([1, 8, 16, 32, 64, 128]),
    st.sampled_from([1, 8, 16, 32, 64, 128]),
)
def test_sums_of_products_of_rounded_lengths_are_found(
    constant: int, linear: int, product: int, one: int, other: int
) -> None:
    def size(length: int) -> int:
        return constant + linear * up(length, one) + product * length * up(length, other)

    found = search(size)
    assert isinstance(found, SizeFunction)
    assert all(found(length) == size(length) for length in WANTED)


def search(
    size: Callable[[int], int],
    offsets: tuple[int, ...] = (0,),
    buffers: tuple[BlockFunction, ...] = (),
    most: int = 40,
) -> Function | None:
    """Ask for the lengths that are wanted until a function is found."""
    known = list(KNOWN)
    while True:
        wanted = [length for length in WANTED if length not in known]
        found = find(known, [size(length) for length in known], wanted, offsets, buffers)
        if not isinstance(found, Undecided):
            return found
        assert found.length in wanted
        known.append(found.length)
        assert len(known) < most


@settings(deadline=None, max_examples=5)
@given(
    st.sampled_from([20, 37, 200]),
    st.integers(0, 5000),
    st.integers(1, 5000),
    st.integers(1, 300),
    st.sampled_from([8, 16, 32, 64]),
    st.booleans(),
)
def test_virtual_tokens_are_part_of_the_length_that_is_squared_and_rounded(
    offset: int, constant: int, linear: int, product: int, step: int, padded: bool
) -> None:
    def size(length: int) -> int:
        whole = length + offset
        rounded = up(whole, step)
        square = product * whole * (rounded if padded else whole)
        return constant + linear * whole + square + 384 * up(whole, 32) + 96 * up(whole, 64)

    found = search(size, (0, offset))
    assert isinstance(found, SizeFunction)
    assert all(found(length) == size(length) for length in WANTED)


@pytest.mark.parametrize(
    ("unit", "things", "divisor", "offset", "most"),
    [(4, 75, 64, 0, 426), (4, 75, 64, 0, 300), (12288, 4, 64, 0, 9), (512, 3, 32, 20, 1000)],
)
def test_a_reduction_has_as_many_buffers_as_blocks_of_threads(
    unit: int, things: int, divisor: int, offset: int, most: int
) -> None:
    def buffers(length: int) -> int:
        return unit * min(most, -(-things * (length + offset) // divisor))

    def traffic(length: int) -> int:
        return 10 + 19200 * length + 2 * buffers(length)

    offsets = tuple(dict.fromkeys((0, offset)))
    found = search(buffers, offsets)
    assert isinstance(found, BlockFunction)
    assert all(found(length) == buffers(length) for length in WANTED)
    both = search(traffic, offsets, (found,))
    assert isinstance(both, Together)
    assert all(both(length) == traffic(length) for length in WANTED)


def test_what_is_no_such_function_is_not_found() -> None:
    sizes = [length**3 for length in KNOWN]
    assert find(KNOWN, sizes, WANTED) is None
    bent = [max(4096, 40 * length) for length in KNOWN]
    assert find(KNOWN, bent, WANTED) is None
    odd = [40 * length + (length == 131) for length in KNOWN]
    assert find(KNOWN, odd, WANTED) is None


def test_a_function_is_held_to_more_lengths_than_determine_it() -> None:
    for count in range(1, 2 + HELD_OUT):
        known = KNOWN[:count]
        assert isinstance(find(known, [7 + 3 * length for length in known], WANTED), Undecided)
    assert isinstance(find(KNOWN, [7 + 3 * length for length in KNOWN], WANTED), SizeFunction)


def test_roundings_that_fit_alike_are_told_apart_by_a_length_where_they_differ() -> None:
    known = [64, 128, 192, 256, 320]  # rounded to 8 or to 64: the same
    found = find(known, [10 * length for length in known], [448, 450])
    assert found == Undecided(450)
    assert isinstance(find(known, [10 * length for length in known], [448]), SizeFunction)
