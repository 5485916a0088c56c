"""Records as the tables that are printed: the report's own, or flat ones with units in the headers.

Each table is of one source, which its caption says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from profiler.analysis.memory import MODULE_COLUMNS
from profiler.errors import UsageError
from profiler.export import flat
from profiler.record import Record
from profiler.report import tables, units
from profiler.report.cells import Cell, arrange, distinct, grouped
from profiler.report.tables import Column, Field, Rows, Table, memory_field

#: Tables that the report makes, by name.
_REPORTED: dict[str, Callable[[Sequence[Cell]], list[Table]]] = {
    "cells": tables.methods,
    "breakdown": tables.breakdown,
    "phases": tables.phases,
    "fits": tables.fit_matrix,
    "holders": lambda cells: [tables.holders(cell) for cell in cells if cell.drawable],
}

#: What can be printed, by name.
NAMES = tuple(dict.fromkeys((*flat.TABLES, *_REPORTED)))

#: Columns of flat tables in bytes and in seconds, by their beginnings and by their whole names.
_BYTES = ("memory.", "fits.", "allocated")
_BYTE_NAMES = frozenset(("bytes", "reserved", "params.adapter_file_bytes", *MODULE_COLUMNS))
_SECONDS = ("time.phases.", "time.spread.")
_SECOND_NAMES = frozenset(("time.step", "seconds"))


def make(records: Sequence[Record], table: str, columns: Sequence[str] = ()) -> list[Table]:
    """The tables of a name of `NAMES`: the report's, or a flat one for each cell; with `columns`
    those of the flat table, one for each source.

    Raises:
        UsageError: a column that no row has, or there is nothing to show.
    """
    cells = arrange(records)
    if columns:
        names = flat.names(records, table, columns)
        groups = grouped(cells, lambda cell: cell.source).values()
        return [_flat(same, table, names, _models(same)) for same in groups]
    if table in _REPORTED:
        made = _REPORTED[table](cells)
    else:
        made = [
            _flat([cell], table, _own_columns(cell, table), _whose(cell))
            for cell in cells
            if any(flat.TABLES[table](cell.record))
        ]
    if not made:
        raise UsageError(f"no record has {table}")
    return made


def _own_columns(cell: Cell, table: str) -> list[str]:
    """The columns that say more than whose rows they are, which the caption does."""
    said = {*flat.KEYS, "time.source"}
    return [name for name in flat.names([cell.record], table) if name not in said]


def _whose(cell: Cell) -> str:
    return f"{cell.name}, {cell.model} on {cell.device}, {cell.workload}"


def _models(cells: Sequence[Cell]) -> str:
    names = distinct(cell.model for cell in cells)
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} models"


def _flat(cells: Sequence[Cell], table: str, names: Sequence[str], whose: str) -> Table:
    records = [cell.record for cell in cells]
    rows = flat.select(records, table, names)
    times = distinct(record.time.source for record in records if record.time)
    shown = [_column(name, [row[name] for row in rows], times) for name in names]
    return Table(
        caption=f"{table.capitalize()}: {whose}",
        columns=[column for column, _ in shown],
        groups=[Rows("", [[fields[place] for _, fields in shown] for place in range(len(rows))])],
        source=cells[0].source,
    )


def _column(name: str, values: list[Any], times: Sequence[str]) -> tuple[Column, list[Field]]:
    """A column and its fields, in the unit in which it reads well."""
    label = name.removeprefix("spec.").removeprefix("memory.").replace(".", " ").replace("_", " ")
    numbers = [value for value in values if _is_number(value)]
    mixed = any(value is not None and not _is_number(value) for value in values)
    if not numbers or mixed:
        return Column(label, number=False), [_text(value) for value in values]
    if _is_bytes(name):
        return Column(label, "GiB"), [memory_field(value) for value in values]
    if name.startswith(_SECONDS) or name in _SECOND_NAMES:
        divisor, unit = units.seconds_unit(numbers)
        unit = f"{unit}, {times[0]}" if len(times) == 1 else unit
    elif name == "flops" or name.startswith("flops."):
        divisor, unit = units.flops_unit(numbers)
    else:
        return Column(label), [_text(value) for value in values]
    return Column(label, unit), [
        Field(units.NONE) if value is None else Field(units.scaled(value, divisor), value)
        for value in values
    ]


def _is_bytes(name: str) -> bool:
    if name.startswith("memory.history."):  # steps and shapes, and two means
        return name.endswith("_mean")
    return name.startswith(_BYTES) or name in _BYTE_NAMES


def _text(value: Any) -> Field:
    if value is None:
        return Field(units.NONE)
    if isinstance(value, float):
        return Field(f"{value:.6g}", value)
    return Field(units.count(value), value) if _is_number(value) else Field(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
