"""A validation on stdout: a table for people, JSON, CSV or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from profiler.lines import one_line
from profiler.report import units
from profiler.terminal import text as as_text
from profiler.validation.metrics import metric
from profiler.validation.result import WRONG, Figure, Validation
from profiler.validation.summary import Summary, summarise

FORMATS = ("table", "json", "csv", "markdown")

_STYLES = {"within": "green", "unexplained": "red", "no result": "red"}
_COLUMNS = ("case", "metric", "simulated", "measured", "error", "bound", "verdict")


def write(validation: Validation, format: str, stream: TextIO) -> None:
    """Write a validation in one of `FORMATS`."""
    if format == "json":
        stream.write(validation.to_json() + "\n")
    elif format == "csv":
        _write_csv(validation, stream)
    else:
        style = box.MARKDOWN if format == "markdown" else box.SIMPLE_HEAD
        notes = "\n".join([line for note in _footnotes(validation) for line in (note, "")])
        said = f"\n{notes}\nErrors by group and metric; a rank correlation is Spearman's.\n"
        stream.write(as_text(stream, _figures(validation, style), said))
        stream.write(as_text(stream, _summaries(validation, style)))


def _write_csv(validation: Validation, stream: TextIO) -> None:
    import pandas as pd

    rows = [figure.model_dump() for figure in validation.figures]
    pd.DataFrame(rows, columns=list(Figure.model_fields), dtype=object).to_csv(stream, index=False)


def _footnotes(validation: Validation) -> list[str]:
    return [f"[{number}] {one_line(text)}" for text, number in _notes(validation).items()]


def _notes(validation: Validation) -> dict[str, int]:
    """A number for each explanation."""
    said = dict.fromkeys(one.explanation for one in validation.figures if one.explanation)
    return {text: number for number, text in enumerate(said, 1)}


def _figures(validation: Validation, style: box.Box) -> Table:
    """Every prediction beside what was measured."""
    notes = _notes(validation)
    table = _table(style)
    for name in _COLUMNS:
        number = name in ("simulated", "measured", "error", "bound")
        table.add_column(name, justify="right" if number else "left", no_wrap=name != "verdict")
    for one in validation.figures:
        said = f"{one.verdict} [{notes[one.explanation]}]" if one.explanation else one.verdict
        said += ", fitted" if one.fitted else ""
        table.add_row(
            _plain(one.case, style),
            metric(one.metric).label,
            number_of(one.predicted, one.kind),
            number_of(one.measured, one.kind),
            units.NONE if one.error is None else units.fine_percent(one.error),
            bound_of(one.bound),
            Text(_plain(said, style), style=_STYLES.get(one.verdict, "")),
        )
    return table


def _summaries(validation: Validation, style: box.Box) -> Table:
    """The errors of each group's metrics."""
    table = _table(style)
    for name in ("group", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("cases", "median error", "worst", "bound", "within", "rank correlation"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worst case", no_wrap=True)
    for one in summarise(validation.figures):
        table.add_row(one.group, metric(one.metric).label, *summary_fields(one), one.worst_case)
    return table


def summary_fields(one: Summary) -> tuple[str, ...]:
    """A summary's numbers as text: cases, median, worst, bound, within, rank correlation."""
    return (
        str(one.cases),
        units.NONE if one.median is None else units.fine_percent(one.median).lstrip("+"),
        units.NONE if one.worst is None else units.fine_percent(one.worst),
        bound_of(one.bound),
        units.NONE if one.within is None else f"{one.within} of {one.cases}",
        units.NONE if one.rank_correlation is None else f"{one.rank_correlation:.3f}",
    )


def number_of(value: float | None, kind: str) -> str:
    """A number of a metric: bytes and counts to the last one, seconds to a microsecond.

    >>> number_of(1536, "bytes"), number_of(0.1, "seconds"), number_of(None, "count")
    ('1,536', '0.100 s', '–')
    """
    if value is None:
        return units.NONE
    return f"{value:,.3f} s" if kind == "seconds" else f"{round(value):,}"


def bound_of(bound: float | None) -> str:
    """
    >>> bound_of(0.01), bound_of(0.0), bound_of(None)
    ('1 %', 'exact', '–')
    """
    if bound is None:
        return units.NONE
    return f"{100 * bound:g} %" if bound else "exact"


def _table(style: box.Box) -> Table:
    if style is box.MARKDOWN:
        return Table(box=style)
    return Table(box=style, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def _plain(text: str, style: box.Box) -> str:
    """A name on one line; in Markdown a bar would end the column."""
    return one_line(text).replace("|", "\\|") if style is box.MARKDOWN else one_line(text)


def wrong(figures: Sequence[Figure]) -> list[str]:
    """A line for each figure that is off without a known reason, and for each case without any."""
    lines = [
        f"{one.case}: {one.explanation}"
        if one.error is None
        else f"{one.case}: {metric(one.metric).label} {units.fine_percent(one.error)}"
        for one in figures
        if one.verdict in WRONG
    ]
    return list(dict.fromkeys(lines))
