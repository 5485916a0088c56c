"""Which cell the others are compared with: one baseline for each model, device and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.errors import unknown
from profiler.record import Record
from profiler.report.cells import Cell, comparable, distinct, grouped

#: The preset that others are compared with where nothing is named.
PRESET = "lora"


@dataclass(frozen=True, slots=True)
class Against:
    """A baseline, and the cells of the same model, device, source and batch beside it."""

    base: Cell
    others: list[Cell]

    def name(self, cell: Cell) -> str:
        """A cell's name here: what all the cells share is said once, with the baseline."""
        cells = [self.base, *self.others]
        return cell.method if len({one.method for one in cells}) == len(cells) else cell.short


def against(cells: Sequence[Cell], named: str = "") -> list[Against]:
    """Every cell with a result beside its baseline, in the page's order.

    A baseline is of the method `named`: a label as typed, or a preset. Where several are at hand,
    a cell's is the one whose settings differ least from its own, then the one that trains least.

    Raises:
        UsageError: a method is named and no cell with a result is of it.
    """
    answered = [cell for cell in cells if cell.memory.peak_allocated is not None]
    bases = [cell for cell in answered if is_of(cell.record, named or PRESET)]
    if named and not bases:
        labels = distinct(cell.record.label for cell in answered)
        raise unknown("baseline", named, labels, hint=" (a method of a cell with a result)")
    places = grouped(bases, _place)
    result: dict[str, Against] = {}
    for cell in answered:
        candidates = places.get(_place(cell), [])
        if not candidates:
            continue
        # A baseline is its own, unless one of the same settings trains less.
        base = min(candidates, key=lambda base: (len(otherwise(cell, base)), *_trained(base)))
        found = result.setdefault(base.key, Against(base, []))
        if base is not cell:
            found.others.append(cell)
    return [found for found in result.values() if found.others]


def is_of(record: Record, method: str) -> bool:
    """Whether a record has a result and is of this method: a label as typed, or a preset."""
    found = record.spec.get("method")
    preset = found.get("preset") if isinstance(found, dict) else None
    return record.memory.peak_allocated is not None and method in (record.label, preset)


def otherwise(cell: Cell, base: Cell) -> dict[str, tuple[str, str]]:
    """Settings of the run, beside its method, that are not the baseline's: ours and theirs."""
    ours, theirs = comparable(cell.record), comparable(base.record)
    return {
        name: (ours[name], theirs[name])
        for name in ours
        if name in theirs and ours[name] != theirs[name]
    }


def options(cell: Cell, base: Cell) -> dict[str, str]:
    """Plain options in which two configurations of one kind of adapter differ, with our values."""
    ours, theirs = _config(cell.record), _config(base.record)
    if not ours or ours.get("peft_type") != theirs.get("peft_type"):
        return {}
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in ours.items()
        if isinstance(value, (bool, int, float, str)) and value != theirs.get(name)
    }


def _config(record: Record) -> dict[str, object]:
    method = record.spec.get("method")
    config = method.get("config") if isinstance(method, dict) else None
    return config if isinstance(config, dict) else {}


def _place(cell: Cell) -> tuple[str, str, str, str]:
    return cell.model, cell.device, cell.source, cell.workload


def _trained(cell: Cell) -> tuple[int, str]:
    return cell.record.params.trainable if cell.record.params else 0, cell.key
