"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from profiler.errors import UsageError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,15})?)\s*([kmgt]i?b|b|)", re.IGNORECASE)


def parse(text: str, flag: str) -> int:
    """The bytes of a size.

    Raises:
        UsageError: it is none, or zero; the message begins with `flag`.

    >>> parse("22.5GiB", "--vram"), parse("24GB", "--vram"), parse("512", "--vram")
    (24159191040, 24000000000, 512)
    """
    found = _SIZE.fullmatch(text.strip())
    nbytes = round(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if nbytes < 1:
        raise UsageError(
            f"{flag} must be a size such as 22.5GiB, 24GB or 24000000000, not {text!r}"
        )
    return nbytes
