"""Records as CSV: one row each, nested keys joined by dots."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any, TextIO

from profiler.record import Record

#: What has no place in a row: a table or a curve of its own for every record.
_LEFT_OUT = frozenset(
    ("memory.largest_at_peak", "memory.modules", "memory.timeline", "time.kernels")
)


def write(records: Sequence[Record], stream: TextIO) -> None:
    """Write a header and a row for each record; a key that a record lacks is an empty field."""
    rows = [row(record) for record in records]
    columns = list(dict.fromkeys(key for one in rows for key in one))
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    writer.writerows(rows)


def row(record: Record) -> dict[str, Any]:
    """A record's scalars by dotted key. Lists and the method's config are JSON text."""
    flat: dict[str, Any] = {}
    _flatten(record.to_dict(), "", flat)
    return flat


def _flatten(data: dict[str, Any], prefix: str, into: dict[str, Any]) -> None:
    for key, value in data.items():
        name = prefix + key
        if name in _LEFT_OUT:
            continue
        if isinstance(value, dict) and name != "spec.method.config":
            _flatten(value, name + ".", into)
        elif isinstance(value, dict | list):
            into[name] = json.dumps(value, ensure_ascii=False)
        else:
            into[name] = value
