"""Flat tables as Apache Parquet, for pandas, DuckDB, Polars and R. Needs pyarrow."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import profiler
from profiler.errors import UsageError
from profiler.export import flat
from profiler.record import Record


def render(records: Sequence[Record], table: str = "cells", columns: Sequence[str] = ()) -> bytes:
    """The table as a file of one row group; integers stay exact where rows lack them.

    A column whose values are of several kinds, or too large for 64 bits, holds their JSON text.

    Raises:
        UsageError: a column that no row has, or pyarrow is not installed.
    """
    rows = flat.rows(records, table, columns)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "--to parquet needs pyarrow, which is not installed: "
            "pip install 'peft-profiler[parquet]'"
        ) from None
    made = pyarrow.table(
        {name: _column(pyarrow, [row[name] for row in rows]) for name in rows[0]},
        metadata={"profiler.version": profiler.__version__, "profiler.table": table},
    )
    stream = io.BytesIO()
    parquet.write_table(made, stream)
    return stream.getvalue()


def _column(pyarrow: Any, values: list[Any]) -> Any:
    plain = [_utf8(value) if isinstance(value, str) else value for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        try:
            return pyarrow.array(plain)
        except (OverflowError, pyarrow.ArrowInvalid):  # more than 64 bits
            pass
    return pyarrow.array([None if value is None else _text(value) for value in plain])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _utf8(text: str) -> str:
    """A path typed with bytes that are no UTF-8 becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
