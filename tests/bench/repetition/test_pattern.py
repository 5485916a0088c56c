"""Insertions that make a deeper model's tokens of a shallower one's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.pattern import insertions, stretches_of

WORDS = st.lists(st.integers(0, 3), max_size=8)


def inserted(short: list[int], long: list[int], places: list[tuple[int, int]]) -> list[int]:
    made, taken, at = [], 0, 0
    for place, count in places:
        made += short[taken:place]
        taken = place
        at = len(made)
        made += long[at : at + count]
    return made + short[taken:]


@given(WORDS, st.lists(st.tuples(WORDS, WORDS), max_size=4), st.sampled_from([1, 4, 16]))
def test_what_is_found_makes_the_longer_one(
    head: list[int], parts: list[tuple[list[int], list[int]]], ahead: int
) -> None:
    short = head + [word for fixed, layer in parts for word in layer + fixed]
    long = head + [word for fixed, layer in parts for word in layer * 2 + fixed]
    try:
        places = insertions(short, long, ahead)
    except NotPeriodicError:
        return  # looked too far ahead, or not far enough: another one is tried
    assert inserted(short, long, places) == long


def test_one_stretch_is_found_however_far_one_looks() -> None:
    short, long = [9, 1, 2, 1, 2, 8], [9, 1, 2, 1, 2, 1, 2, 8]
    for ahead in (1, 4, 64):
        assert insertions(short, long, ahead) == [(5, 2)]


@pytest.mark.parametrize("long", [[1, 2], [1, 3, 2, 4], [3, 2, 1]])
def test_what_is_no_insertion_is_refused(long: list[int]) -> None:
    with pytest.raises(NotPeriodicError):
        insertions([1, 2, 3], long)


def test_two_lists_in_a_row_are_told_apart() -> None:
    """Each has as many tokens as there are layers; all at once they look like one list's growth."""
    depths = [[1] * (2 * count) + [2] * (2 * count) for count in (2, 3, 4)]
    with pytest.raises(NotPeriodicError):
        stretches_of(depths, 1)
    assert stretches_of(depths, 1, at_once=False) == [(4, 2), (8, 2)]
