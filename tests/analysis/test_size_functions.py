"""Functions of a length, found from a few and right at the others, or not found."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.size_functions import HELD_OUT, SizeFunction, Undecided, find

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

    known = list(KNOWN)
    while True:
        wanted = [length for length in WANTED if length not in known]
        found = find(known, [size(length) for length in known], wanted)
        if not isinstance(found, Undecided):
            break
        assert found.length in wanted
        known.append(found.length)
        assert len(known) < 40
    assert isinstance(found, SizeFunction)
    assert all(found(length) == size(length) for length in WANTED)


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
