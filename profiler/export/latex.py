"""Tables for a paper: LaTeX with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.export import printed, templates
from profiler.record import Record
from profiler.report.tables import Table


def render(records: Sequence[Record], table: str = "cells", columns: Sequence[str] = ()) -> str:
    """A `table` environment for each table; needs `\\usepackage{booktabs}`.

    Raises:
        UsageError: a column that no row has.
    """
    made = printed.make(records, table, columns)
    return templates.render("table.tex", tables=made, names=_names(table, made))


def _names(table: str, made: Sequence[Table]) -> list[str]:
    """What `\\ref` calls each table."""
    plain = [f"{table}-{one.source}" for one in made]
    return [
        name if plain.count(name) == 1 else f"{name}-{number}"
        for number, name in enumerate(plain, 1)
    ]
