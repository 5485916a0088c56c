"""Records as flat tables: one row each, or one for each module, block, point or kernel of each.

Columns have the record's own keys, joined by dots. Bytes, FLOPs and counts are integers, times
seconds; what a record lacks is missing in its row.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from profiler.errors import UsageError, unknown
from profiler.record import Record

Row = dict[str, Any]

#: What has no place in a record's one row: a table or a curve of its own.
_LEFT_OUT = frozenset(
    (
        *("memory.history.series", "memory.holders", "memory.largest_at_peak"),
        *("memory.modules", "memory.timeline", "time.kernels"),
        *("flops.modules", "time.modules"),
    )
)

#: By which the rows of the other tables say whose they are.
KEYS = (
    "id",
    "source",
    "spec.model",
    "spec.method.label",
    "spec.device",
    "spec.batch_size",
    "spec.seq_len",
    "environment.fingerprint",
)


def rows(records: Sequence[Record], table: str, columns: Sequence[str] = ()) -> list[Row]:
    """The rows of a table of `TABLES`; `columns` are names or patterns (`memory.at_peak.*`).

    Every row has the same keys, in the order of the columns.

    Raises:
        UsageError: a column that no row has, or there is no row.
    """
    return select(records, table, names(records, table, columns))


def names(records: Sequence[Record], table: str, columns: Sequence[str] = ()) -> list[str]:
    """The names of a table's columns. Args and `UsageError` as in `rows`."""
    known = list(
        dict.fromkeys(name for one in records for row in TABLES[table](one) for name in row)
    )
    if not known:
        raise UsageError(f"no record has {table}")
    return _chosen(known, columns) if columns else known


def select(records: Sequence[Record], table: str, names: Sequence[str]) -> list[Row]:
    """The rows with these columns, whether a record has them or not."""
    return [
        {name: row.get(name) for name in names} for one in records for row in TABLES[table](one)
    ]


def _chosen(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    chosen: dict[str, None] = {}
    for column in columns:
        matching = [column] if column in names else fnmatch.filter(names, column)
        if not matching and "*" in column:
            raise UsageError(f"--columns: no column matches {column!r}")
        if not matching:
            raise unknown("column", column, names)
        chosen |= dict.fromkeys(matching)
    return list(chosen)


def _cells(record: Record) -> Iterator[Row]:
    flat: Row = {}
    _flatten(record.to_dict(), "", flat)
    yield flat


def _modules(record: Record) -> Iterator[Row]:
    keys = _keys(record)
    for module, held in record.memory.modules.items():
        yield {**keys, "module": module, **held}


def _holders(record: Record) -> Iterator[Row]:
    """What is alive at the peak, alike blocks together; of a record from before it kept them, its
    largest blocks. The line that asked for them is `source_line`: `source` is the run's."""
    keys = _keys(record)
    held = record.memory.holders or record.memory.largest_at_peak
    for place, holder in enumerate(held, 1):
        row = {"count": 1, **_as_cells(holder.model_dump(mode="json"))}
        line = row.pop("source", "")
        yield {**keys, "place": place, **row, "source_line": line}


def _timeline(record: Record) -> Iterator[Row]:
    timeline = record.memory.timeline
    if timeline is None:
        return
    keys = _keys(record)
    for place, (event, phase) in enumerate(zip(timeline.event, timeline.phase, strict=True)):
        held = {
            f"allocated.{category}": level[place] for category, level in timeline.allocated.items()
        }
        reserved = timeline.reserved[place] if timeline.reserved is not None else None
        total = {"allocated": sum(held.values()), "reserved": reserved}
        yield {**keys, "event": event, "phase": phase, **total, **held}


def _kernels(record: Record) -> Iterator[Row]:
    if record.time is None:
        return
    keys = {**_keys(record), "time.source": record.time.source}
    for kernel in record.time.kernels:
        yield {**keys, **_as_cells(kernel.model_dump(mode="json"))}


#: The tables by name, each with what gives a record's rows.
TABLES: dict[str, Callable[[Record], Iterator[Row]]] = {
    "cells": _cells,
    "modules": _modules,
    "holders": _holders,
    "timeline": _timeline,
    "kernels": _kernels,
}


def _keys(record: Record) -> Row:
    flat: Row = {}
    _flatten({"spec": record.spec, "environment": record.environment}, "", flat)
    flat |= {"id": record.id, "source": record.source}
    return {key: flat.get(key) for key in KEYS}


def _flatten(data: dict[str, Any], prefix: str, into: Row) -> None:
    for key, value in data.items():
        name = prefix + key
        if name in _LEFT_OUT:
            continue
        if isinstance(value, dict) and name != "spec.method.config":
            _flatten(value, name + ".", into)
        else:
            into[name] = _as_cell(value)


def _as_cells(data: dict[str, Any]) -> Row:
    return {key: _as_cell(value) for key, value in data.items()}


def _as_cell(value: Any) -> Any:
    """Lists and what else has parts as JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
