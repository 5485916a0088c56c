"""What is timed goes by the name and the bytes that a trace gives it."""

from __future__ import annotations

import pytest
import torch

from profiler.analysis.cpu_cost import curve_name
from profiler.calibration.described import describe


def test_a_call_is_described_as_a_trace_does() -> None:
    one, other = torch.ones(32, 64), torch.ones(32, 64)
    op = describe(lambda: one + other)
    assert (op.name, op.dtype, op.nbytes) == ("aten.add", "float32", 3 * 32 * 64 * 4)


def test_a_product_has_its_factors_and_how_they_lie() -> None:
    one, other = torch.ones(8, 16), torch.ones(32, 16)
    op = describe(lambda: one @ other.t())
    assert op.product == (1, 8, 32, 16)
    assert op.transposed == 0b10


@pytest.mark.parametrize(
    ("transpose", "name"), [(False, "aten.add"), (True, "aten.add, transposed")]
)
def test_operands_that_lie_differently_are_told_apart(transpose: bool, name: str) -> None:
    one, other = torch.ones(16, 16), torch.ones(16, 16)
    if transpose:
        other = other.t()
    assert curve_name(describe(lambda: one + other)) == name


def test_operands_that_lie_alike_are_not() -> None:
    one, other = torch.ones(16, 16).t(), torch.ones(16, 16).t()
    assert curve_name(describe(lambda: one + other)) == "aten.add"
    assert curve_name(describe(lambda: one * 2)) == "aten.mul"
