"""Tables for a README or an issue: GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.export import printed, templates
from profiler.record import Record


def render(records: Sequence[Record], table: str = "cells", columns: Sequence[str] = ()) -> str:
    """A caption and a table for each table.

    Raises:
        UsageError: a column that no row has.
    """
    return templates.render("table.md", tables=printed.make(records, table, columns))
