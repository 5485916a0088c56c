"""Flat tables as CSV (RFC 4180, with plain line feeds), safe to open in a spreadsheet.

A text that a spreadsheet would take for a formula, since it begins with `=`, `+`, `-`, `@`, a tab
or a carriage return, gets an apostrophe in front (OWASP, "CSV Injection"). Numbers are left alone.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any, TextIO

from profiler.export import flat
from profiler.record import Record

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(records: Sequence[Record], table: str = "cells", columns: Sequence[str] = ()) -> str:
    """A header and the table's rows; what a record lacks is an empty field.

    Raises:
        UsageError: a column that no row has.
    """
    rows = flat.rows(records, table, columns)
    lines = _Lines()
    writer = csv.writer(lines)
    writer.writerow([_plain(name) for name in rows[0]])
    writer.writerows([_plain(value) for value in row.values()] for row in rows)
    return "".join(lines.written)


def write(records: Sequence[Record], stream: TextIO) -> None:
    """Write the table of cells."""
    stream.write(render(records))


class _Lines:
    """Takes the rows, each with a line feed at its end. (Told to write those itself, `csv` would
    leave a carriage return in a text unquoted.)"""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        self.written.append(line.removesuffix("\r\n") + "\n")


def _plain(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value
