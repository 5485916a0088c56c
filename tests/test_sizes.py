"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import sizes
from profiler.errors import UsageError


@given(
    st.integers(1, 2**50), st.sampled_from([("", 1), ("KiB", 2**10), ("GiB", 2**30), ("gb", 10**9)])
)
def test_a_number_and_a_unit(number: int, unit: tuple[str, int]) -> None:
    assert sizes.parse(f"{number}{unit[0]}", "--vram") == pytest.approx(number * unit[1])


@pytest.mark.parametrize(
    "text",
    ["", "0", "0GiB", "-1", "1e9", "GiB", "1 GiB 2", "inf", "nan", "0x10", "1.5.2GB", "9" * 400],
)
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--vram must be a size such as 22\.5GiB"):
        sizes.parse(text, "--vram")
