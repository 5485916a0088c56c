from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.score import front, pscp_exponential, pscp_product

COSTS = {"trainable": 2.0, "latency": 1.0, "memory": 4.0}
LARGEST = {"trainable": 4.0, "latency": 2.0, "memory": 4.0}


def test_the_exponential_form_by_hand() -> None:
    assert pscp_exponential(80, COSTS, LARGEST, {}) == pytest.approx(80 * math.exp(-2.0))
    weights = {"trainable": 0.0, "latency": 2.0, "memory": 0.5}
    assert pscp_exponential(80, COSTS, LARGEST, weights) == pytest.approx(80 * math.exp(-1.5))


def test_the_product_form_by_hand() -> None:
    constants = {"trainable": 2.0, "latency": 1.0, "memory": 4.0}
    assert pscp_product(80, COSTS, constants, {}) == pytest.approx(10)
    assert pscp_product(80, COSTS, constants, {"memory": 2.0}) == pytest.approx(5)
    assert pscp_product(80, COSTS, constants, dict.fromkeys(COSTS, 0.0)) == 80


def test_a_cost_that_nobody_has_takes_nothing_off() -> None:
    assert pscp_exponential(1, {"memory": 0.0}, {"memory": 0.0}, {}) == 1


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), min_size=1, max_size=12))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    kept = {point for point, best in zip(points, front(points), strict=True) if best}
    assert kept
    for point in points:
        dominated = any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)
        assert (point in kept) is not dominated
