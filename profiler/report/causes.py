"""What a difference between two records comes from above all: modules for bytes, ops for time.

Only as far as the records show it: the entry that changed most, in the difference's direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from profiler.analysis import difference
from profiler.report import units
from profiler.report.cells import Cell
from profiler.report.text import listing

#: A cause is named if it makes this share of the change.
EXPLAINS = 0.2
#: Modules or ops with the same change are named together, up to so many.
TIED = 3


def modules(cell: Cell, base: Cell, category: str, change: int) -> str:
    """The modules whose part of a category changed most, "" where none explains it."""
    ours, theirs = (difference.held(one.memory, category) for one in (cell, base))
    return above_all(ours, theirs, change, units.binary)


def ops(cell: Cell, base: Cell, change: float) -> str:
    """The ops whose time changed most, "" where none explains it."""
    ours, theirs = (difference.seconds(one.record.time) for one in (cell, base))
    return above_all(ours, theirs, change, duration)


def duration(seconds: float) -> str:
    """A time without its sign, for running text."""
    divisor, unit = units.seconds_unit([abs(seconds)])
    return f"{units.scaled(abs(seconds), divisor)} {unit}"


def above_all(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    change: float,
    size: Callable[[Any], str],
) -> str:
    """The entries that changed most in the direction of `change`, if they make enough of it."""
    names, most = difference.leading(theirs, ours, change)
    if not names or len(names) * abs(most) < EXPLAINS * abs(change):
        return ""
    each = " each" if len(names) > 1 else ""
    more = [f"{len(names) - TIED} more"] if len(names) > TIED else []
    return f"above all {listing([*names[:TIED], *more])}, {units.signed(most, size(most))}{each}"
