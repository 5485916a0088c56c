"""Numbers as the page writes them."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.report import svg, text, units


@pytest.mark.parametrize("module", [units, text, svg])
def test_examples_in_docstrings_hold(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


@given(st.integers(-(2**50), 2**50), st.sampled_from([1, 2]))
def test_gib_is_within_half_a_unit_of_its_last_digit(nbytes: int, decimals: int) -> None:
    shown = units.gib(nbytes, decimals)
    assert shown.startswith(units.MINUS) == (nbytes < 0)
    plain = shown.replace(units.MINUS, "").replace("<", "")
    slack = 10.0**-decimals * (1 if "<" in shown else 0.5)
    assert math.isclose(float(plain), abs(nbytes) / 2**30, rel_tol=0, abs_tol=slack * 1.000001)


@given(st.integers(1, 2**60))
def test_something_is_never_shown_as_nothing(nbytes: int) -> None:
    assert units.gib(nbytes).strip("0.") != ""
    assert units.gib(0) == "0"


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_share_is_exact_to_four_digits(part: int, whole: int) -> None:
    part = min(part, whole)
    shown = units.percent(part, whole)
    value = 100 * part / whole
    if shown.startswith("<"):
        assert part < whole
        assert value > 99.9
    else:
        assert math.isclose(float(shown.removesuffix(" %")), value, rel_tol=5.1e-4)
    assert (shown == "100 %") == (part == whole)


def test_nothing_is_a_dash() -> None:
    assert units.gib(None) == units.gib_unit(None) == units.count(None) == units.NONE


@given(st.text())
def test_clean_text_can_be_written_and_parsed(words: str) -> None:
    import xml.etree.ElementTree as ET

    cleaned = text.clean(words)
    cleaned.encode("utf-8")
    element = ET.Element("t")
    element.text = cleaned
    assert ET.fromstring(ET.tostring(element, encoding="utf-8")).text == (cleaned or None)


@given(st.text(), st.integers(3, 40))
def test_shortened_text_is_one_short_line(words: str, width: int) -> None:
    short = text.shorten(words, width)
    assert len(short) <= width
    assert "\n" not in short
    if len(words) <= width and words == " ".join(text.clean(words).split()):
        assert short == words
