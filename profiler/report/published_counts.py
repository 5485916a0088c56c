"""Published parameter counts beside ours: they agree to the unit, or the difference is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.report import units
from profiler.report.cells import Cell, distinct, grouped
from profiler.report.tables import Column, Field, Rows, Table
from profiler.report.text import listing

if TYPE_CHECKING:
    from profiler.report.published import PublishedTable

_WIDTH = 5


def table(published: PublishedTable, cells: Sequence[Cell], source: str) -> Table:
    """A row of theirs and one of ours for each method that has published counts."""
    groups = []
    for row in published.rows:
        if row.parameters is None:
            continue
        counted = [
            (cell, cell.record.params)
            for cell in cells
            if cell.record.params is not None and row.matches(cell.record.spec)
        ]
        alike: dict[tuple[int, int], list[Cell]] = {}
        for cell, params in counted:
            alike.setdefault((params.trainable, params.total), []).append(cell)
        ours = [_ours(row.parameters, counts, group) for counts, group in alike.items()]
        groups.append(Rows(row.method, [_theirs(row.parameters), *(ours or [_none()])], row.note))
    return Table(
        caption=f"{published.title}: published, and counted here",
        columns=[
            Column("whose", number=False),
            Column("trainable", "parameters"),
            Column("of all", "%"),
            Column("all", "parameters"),
            Column("to the unit", number=False),
        ],
        groups=groups,
        source=source,
    )


def _theirs(parameters: tuple[int, int]) -> list[Field]:
    trainable, total = parameters
    return [Field("published"), *_counts(trainable, total), Field(units.NONE)]


def _ours(
    published: tuple[int, int], counts: tuple[int, int], cells: Sequence[Cell]
) -> list[Field]:
    names = grouped(cells, lambda cell: cell.short)
    tip = listing(distinct(cell.name for cell in cells))
    apart = [
        f"{units.difference(ours - theirs)} {what}"
        for what, ours, theirs in zip(("trainable", "in all"), counts, published, strict=True)
        if ours != theirs
    ]
    verdict = Field(f"✗ {', '.join(apart)}", tone="bad") if apart else Field("✓ both", tone="good")
    return [Field(listing(list(names)), tip=tip, code=True), *_counts(*counts), verdict]


def _counts(trainable: int, total: int) -> list[Field]:
    return [
        Field(units.count(trainable), trainable, "count"),
        Field(units.percent(trainable, total).removesuffix(" %")),
        Field(units.count(total), total, "count"),
    ]


def _none() -> list[Field]:
    none = Field("no run of this configuration", tone="muted")
    return [none, *[Field(units.NONE)] * (_WIDTH - 1)]
