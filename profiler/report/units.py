"""Numbers as the page writes them: GiB with the exact bytes beside, one prefix to a column."""

from __future__ import annotations

import math
from collections.abc import Iterable

GIB = 2**30
GB = 10**9
#: What stands where there is no number.
NONE = "–"
MINUS = "−"

_FLOPS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
_SECONDS = ((10.0, 1.0, "s"), (0.0, 1e-3, "ms"))


def gib(nbytes: int | None, decimals: int = 2) -> str:
    """Bytes as a number of GiB, without the unit.

    >>> gib(3 * 2**30), gib(1), gib(0), gib(-2**29)
    ('3.00', '<0.01', '0', '−0.50')
    """
    if nbytes is None:
        return NONE
    if nbytes == 0:
        return "0"
    text = f"{abs(nbytes) / GIB:.{decimals}f}"
    if float(text) == 0.0:
        text = "<0." + "0" * (decimals - 1) + "1"
    return MINUS + text if nbytes < 0 else text


def gib_unit(nbytes: int | None, decimals: int = 1) -> str:
    """Bytes in GiB with the unit, for running text."""
    return NONE if nbytes is None else f"{gib(nbytes, decimals)} GiB"


def exact_bytes(nbytes: int) -> str:
    """
    >>> exact_bytes(1536)
    '1,536 bytes'
    """
    return f"{nbytes:,} bytes"


def count(number: int | None) -> str:
    """
    >>> count(4194304)
    '4,194,304'
    """
    return NONE if number is None else f"{number:,}"


def percent(part: float, whole: float) -> str:
    """The share in percent with four significant digits.

    >>> percent(4194304, 6662668288), percent(1, 1), percent(0, 5), percent(1, 0)
    ('0.06295 %', '100 %', '0 %', '–')
    """
    if not whole:
        return NONE
    value = 100 * part / whole
    if value == 0:
        return "0 %"
    if part != whole and f"{value:.4g}" == "100":
        return "<100 %"
    digits = 0 if value == 100 else max(0, 3 - math.floor(math.log10(value)))
    return f"{value:.{digits}f} %"


def signed_percent(value: float) -> str:
    """A relative difference, 0.1 being ten percent.

    >>> signed_percent(0.123), signed_percent(-0.04)
    ('+12 %', '−4.0 %')
    """
    size = abs(100 * value)
    text = f"{size:.0f}" if size >= 9.95 else f"{size:.1f}"
    return f"{MINUS if value < 0 else '+'}{text} %"


def difference(value: int) -> str:
    """A signed whole number.

    >>> difference(1536), difference(-2), difference(0)
    ('+1,536', '−2', '0')
    """
    return f"{MINUS if value < 0 else '+'}{abs(value):,}" if value else "0"


def fine_percent(value: float) -> str:
    """As `signed_percent`, with two digits however small the difference; zero is only zero.

    >>> fine_percent(0.0), fine_percent(0.000123), fine_percent(-0.05), fine_percent(1e-9)
    ('0 %', '+0.012 %', '−5.0 %', '<0.001 %')
    """
    size = abs(100 * value)
    if size == 0:
        return "0 %"
    if size >= 0.995:
        return signed_percent(value)
    if size < 0.001:
        return "<0.001 %"
    return f"{MINUS if value < 0 else '+'}{size:.{1 - math.floor(math.log10(size))}f} %"


def flops_unit(values: Iterable[int]) -> tuple[float, str]:
    """Divisor and unit in which a column of FLOPs reads well."""
    largest = max(values, default=0)
    return next((pair for pair in _FLOPS if largest >= pair[0]), (1.0, "FLOP"))


def seconds_unit(values: Iterable[float]) -> tuple[float, str]:
    """Divisor and unit in which a column of durations reads well."""
    largest = max(values, default=0.0)
    return next((size, unit) for least, size, unit in _SECONDS if largest >= least)


def scaled(value: float, divisor: float) -> str:
    """
    >>> scaled(5.1234e12, 1e12), scaled(123456.0, 1.0)
    ('5.12', '123,456')
    """
    number = value / divisor
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.2f}"


def binary(nbytes: int) -> str:
    """Bytes without their sign, in the unit that reads well, for running text.

    >>> binary(-5 * 2**30), binary(90 * 2**20), binary(1536)
    ('5.00 GiB', '90.0 MiB', '1,536 bytes')
    """
    size = abs(nbytes)
    if size >= GIB / 10:
        return f"{size / GIB:.2f} GiB"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else exact_bytes(size)


def signed(value: float, text: str) -> str:
    """`text`, a size, with the sign of the value it is of; zero has none.

    >>> signed(-2.0, "2.0"), signed(3, "3"), signed(0, "0.00")
    ('−2.0', '+3', '0')
    """
    return f"{MINUS if value < 0 else '+'}{text}" if value else "0"
