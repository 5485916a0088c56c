"""The largest number that fits: right on both sides of the border, in few trials."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.advisor.search import Trial, largest

GB = 10**9


@given(
    st.integers(1, 30 * GB),
    st.integers(10**6, 5 * GB),
    st.floats(0, 0.05),
    st.integers(0, GB),
    st.integers(1, 500),
)
def test_the_answer_fits_and_the_next_does_not(
    base: int, each: int, scatter: float, spared: int, limit: int
) -> None:
    """`spared`: what freeing caches makes room for, so that more fits than the need says."""
    capacity = 24 * GB
    tried = []

    def trial(number: int) -> Trial:
        tried.append(number)
        needed = int(base + each * number * (1 + scatter * (number * 7919 % 13) / 13))
        return Trial(base + each * number * (1 + scatter) - spared <= capacity, needed)

    found = largest(trial, capacity, limit=limit)
    assert len(tried) == len(set(tried)) == len(found.trials)
    assert all(1 <= number <= limit for number in tried)
    if found.number == 0:
        assert not found.trials[1].fits
        return
    assert found.trials[found.number].fits
    if found.capped:
        assert found.number == limit
    else:
        assert not found.trials[found.number + 1].fits


@given(st.integers(1, 20 * GB), st.integers(10**7, 4 * GB))
def test_a_straight_line_takes_five_trials(base: int, each: int) -> None:
    def trial(number: int) -> Trial:
        needed = base + each * number
        return Trial(needed <= 24 * GB, needed)

    assert len(largest(trial, 24 * GB, limit=10**6).trials) <= 5
