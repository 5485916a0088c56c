"""What a difference between two records comes from above all: modules for bytes, ops for time.

Only as far as the records show it: the entry that changed most, in the difference's direction.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from profiler.report import units
from profiler.report.cells import Cell
from profiler.report.text import listing

#: A cause is named if it makes this share of the change.
EXPLAINS = 0.2
#: Modules or ops with the same change are named together, up to so many.
TIED = 3


def modules(cell: Cell, base: Cell, category: str, change: int) -> str:
    """The modules whose part of a category changed most, "" where none explains it."""
    return _above_all(_held(cell, category), _held(base, category), change, units.binary)


def ops(cell: Cell, base: Cell, change: float) -> str:
    """The ops whose time changed most, "" where none explains it."""
    return _above_all(_kernels(cell), _kernels(base), change, duration)


def duration(seconds: float) -> str:
    """A time without its sign, for running text."""
    divisor, unit = units.seconds_unit([abs(seconds)])
    return f"{units.scaled(abs(seconds), divisor)} {unit}"


def _kernels(cell: Cell) -> dict[str, float]:
    """Seconds by op and phase."""
    result: dict[str, float] = {}
    time = cell.record.time
    for kernel in time.kernels if time else ():
        name = f"{kernel.op} in the {kernel.phase}"
        result[name] = result.get(name, 0.0) + kernel.seconds
    return result


def _held(cell: Cell, category: str) -> dict[str, int]:
    """Bytes of a category by module; alike layers of a stack are one, written `*`, and what an
    adapter put into a layer belongs to the layer."""
    rows = cell.memory.modules
    wrapped = {path.removesuffix(".base_layer") for path in rows if path.endswith(".base_layer")}
    result: Counter[str] = Counter()
    for path, row in rows.items():
        if path and row.get(category):
            result[_plain(path, wrapped)] += row[category]
    return dict(result)


def _plain(path: str, wrapped: set[str]) -> str:
    """
    >>> _plain("base_model.model.layers.3.fc1.lora_A.default", {"base_model.model.layers.3.fc1"})
    'layers.*.fc1'
    """
    parts = path.split(".")
    for length in range(1, len(parts)):
        if ".".join(parts[:length]) in wrapped:
            parts = parts[:length]
            break
    name = re.sub(r"^(base_model\.)?(model\.)*((decoder|transformer)\.)?", "", ".".join(parts))
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _above_all(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    change: float,
    size: Callable[[Any], str],
) -> str:
    """The entries that changed most in the direction of `change`, if they make enough of it."""
    changes = {name: ours.get(name, 0) - theirs.get(name, 0) for name in {**ours, **theirs}}
    alike = {name: value for name, value in changes.items() if value * change > 0}
    if not alike:
        return ""
    most = max(alike.values(), key=abs)
    names = sorted(name for name, value in alike.items() if abs(value - most) <= 1e-9 * abs(most))
    if len(names) * abs(most) < EXPLAINS * abs(change):
        return ""
    each = " each" if len(names) > 1 else ""
    more = [f"{len(names) - TIED} more"] if len(names) > TIED else []
    return f"above all {listing([*names[:TIED], *more])}, {units.signed(most, size(most))}{each}"
