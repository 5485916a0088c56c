"""Two sets of records as a page: what changed in bytes, FLOPs and time, and what makes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profiler import diff_text
from profiler.analysis.difference import FIGURES, Change, Difference
from profiler.diff_text import Comparison
from profiler.files import write_page
from profiler.record import Record
from profiler.report import interactive, palette, units
from profiler.report.cells import distinct
from profiler.report.interactive import Chart
from profiler.report.page import Section
from profiler.report.palette import category_label
from profiler.report.tables import Column, Field, Rows, Table

SECTIONS = (
    Section("changed", "Answer", "What changed"),
    Section("by_category", "By category", "By category", needs="charts"),
    Section("figures", "Every figure", "Every figure", needs="tables"),
    Section("why", "Why", "What makes the difference", needs="told"),
    Section("unpaired", "Unpaired", "Not compared", needs="unpaired"),
    Section("sides", "Provenance", "Provenance"),
)
#: Cells that the chart draws, those that changed most.
DRAWN = 40


def build(comparison: Comparison, top: int, output: Path, *, command: str = "") -> Path:
    """Write `output/index.html` and return its path.

    Args:
        top: as of `profiler.diff_text.report`.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_page(render(comparison, top, command=command), output)


def render(comparison: Comparison, top: int, *, command: str = "") -> str:
    """The page's HTML. It loads nothing from anywhere; the same records give the same bytes."""
    from profiler.report.templating import environment

    page = environment("profiler", "profiler.report").get_template("page.html")
    return page.render(context(comparison, top, command))


def context(comparison: Comparison, top: int, command: str) -> dict[str, Any]:
    """What the template is given."""
    report = diff_text.report(comparison, top)
    pairs = comparison.differences
    names = diff_text.pair_names(pairs)
    drawn = chart(pairs, names)
    content: dict[str, Any] = {
        "title": "What changed",
        "command": command,
        "style_light": palette.style_variables("light"),
        "style_dark": palette.style_variables("dark"),
        "swatch": lambda category: palette.category_role(category).css,
        "sources": distinct(one.source for pair in pairs for one in (pair.before, pair.after)),
        "kicker": f"{len(pairs)} cells compared",
        "facts": [("A", [comparison.before]), ("B", [comparison.after])],
        "sentences": sentences(pairs),
        "verdict": report.verdict,
        "failures": report.failures,
        "charts": [drawn] if drawn else [],
        "tables": [table(pairs, names)],
        "told": report.told,
        "unpaired": report.closing,
        "environments": environments(comparison),
        "cells": pairs,
    }
    content["sections"] = [item for item in SECTIONS if not item.needs or content[item.needs]]
    return content


def sentences(pairs: Sequence[Difference]) -> list[str]:
    """How many cells changed in what, and by how much at most."""
    result = []
    for name, words in (
        ("peak_allocated", "the peak allocated"),
        ("peak_reserved", "the peak reserved"),
        ("flops", "FLOPs"),
        ("step_time", "the step's time"),
    ):
        changes = [
            (change.share or 0, pair)
            for pair in pairs
            if (change := pair.figures.get(name)) is not None and change.amount is not None
        ]
        if not changes:
            continue
        grown = [share for share, _ in changes if share > 0]
        shrunk = [share for share, _ in changes if share < 0]
        if not grown and not shrunk:
            result.append(f"Equal in all of {len(changes)} cells: {words}.")
            continue
        parts = []
        if grown:
            most = units.fine_percent(float(max(grown)))
            parts.append(f"{len(grown)} more, at most {most}")
        if shrunk:
            most = units.fine_percent(float(min(shrunk)))
            parts.append(f"{len(shrunk)} less, at most {most}")
        result.append(f"Of {len(changes)} cells, in {words}: {'; '.join(parts)}.")
    return result


def chart(pairs: Sequence[Difference], names: Sequence[str]) -> Chart | None:
    """The change at the peak by category, cell by cell."""
    found = [
        (name, pair)
        for name, pair in zip(names, pairs, strict=True)
        if any(change.amount for change in pair.categories.values())
    ]
    if not found:
        return None
    import altair as alt

    found.sort(key=lambda one: -sum(abs(c.amount or 0) for c in one[1].categories.values()))
    shown = found[:DRAWN]
    rows = [
        {
            "cell": name,
            "place": place,
            "category": category_label(category),
            "bytes": int(change.amount),
        }
        for place, (name, pair) in enumerate(shown)
        for category, change in pair.categories.items()
        if change.amount
    ]
    held = distinct(
        category
        for _, pair in shown
        for category, change in pair.categories.items()
        if change.amount
    )
    labels = [category_label(category) for category in held]
    base = (
        alt.Chart(alt.InlineData(values=rows))
        .transform_calculate(
            gib="datum.bytes / 1073741824", exact="format(datum.bytes, '+,') + ' bytes'"
        )
        .encode(y=alt.Y("place:O", title=None, axis=None))
    )
    bars = base.mark_bar(size=13, yOffset=7, stroke="#5c646f", strokeWidth=0.6).encode(
        x=alt.X("gib:Q", title="GiB, B less A", axis=alt.Axis(grid=True)),
        color=alt.Color(
            "category:N",
            legend=None,
            scale=alt.Scale(
                domain=labels, range=[palette.category_role(name).light for name in held]
            ),
        ),
        tooltip=["cell:N", "category:N", alt.Tooltip("exact:N", title="change")],
    )
    words = (
        base.transform_aggregate(cell="min(cell)", groupby=["place"])
        .mark_text(align="left", dx=2, dy=-9)
        .encode(x=alt.value(0), text="cell:N")
    )
    drawn = alt.layer(bars, words).properties(width="container", height=40 * len(shown))
    notes = ["To the right, what B holds more at its peak than A; to the left, what it holds less."]
    if len(shown) < len(found):
        notes.append(f"{len(shown)} of {len(found)} cells that changed are drawn.")
    return interactive.chart(
        "categories-chart",
        "Change at the peak by category",
        drawn,
        label="Bars for each cell: what B holds more or less at its peak than A, by category. The "
        "table below holds the figures.",
        sources=distinct(one.source for _, pair in shown for one in (pair.before, pair.after)),
        legend=[(category_label(name), palette.category_role(name).css) for name in held],
        notes=notes,
    )


def table(pairs: Sequence[Difference], names: Sequence[str]) -> Table:
    """Every figure of every pair: A, B, and the change."""
    rows = []
    for name, pair in zip(names, pairs, strict=True):
        lines = [
            [Field(diff_text.label(key, pair)), *_fields(change, FIGURES[key][0])]
            for key, change in pair.figures.items()
        ]
        rows.append(Rows(name, lines))
    return Table(
        caption="Every figure",
        columns=[
            Column("figure", number=False),
            Column("A"),
            Column("B"),
            Column("change", "B less A"),
            Column("share"),
        ],
        groups=rows,
    )


def _fields(change: Change, unit: str) -> list[Field]:
    before, after = diff_text.both_sides(change, unit)
    kind = {"bytes": "bytes", "count": "count", "FLOPs": "flops", "seconds": "seconds"}[unit]
    share = Field(units.NONE)
    if change.share is not None:
        value = float(change.share)
        worse = change.amount is not None and change.amount > 0
        tone = "" if not value else "bad" if worse else "good"
        share = Field(units.fine_percent(value), value, "share", tone=tone)
    return [
        Field(before, change.before, kind),
        Field(after, change.after, kind),
        Field(diff_text.amount(change, unit), change.amount, kind),
        share,
    ]


def environments(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What each side ran on, by name."""

    def values(records: Sequence[Record], name: str) -> str:
        found = distinct(
            value if isinstance(value, str) else ", ".join(map(str, value or []))
            for record in records
            if isinstance(value := record.environment.get(name), str | list)
        )
        return "; ".join(found) or units.NONE

    before = [pair.before for pair in comparison.differences]
    after = [pair.after for pair in comparison.differences]
    names = distinct(name for record in (*before, *after) for name in record.environment)
    return [(name, values(before, name), values(after, name)) for name in names]
