"""Figures published by others beside ours. Each table of them is one file in `published/`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from profiler.report import published_counts, published_means, published_sums, units
from profiler.report.cells import Cell, distinct, grouped
from profiler.report.tables import Column, Rows, Table, memory_field
from profiler.report.tables import Field as TableField
from profiler.report.text import listing

#: "About": a figure within this share of the published one reproduces it.
ABOUT = 0.05
#: What a published GB may mean, in bytes, and how it is written.
READINGS = {"10⁹": units.GB, "2³⁰": units.GIB}


class Term(BaseModel):
    """One term of a published sum: what it counts, in 10⁹ bytes, and the categories it names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    gb: float = Field(gt=0)
    categories: list[str]


class PublishedRow(BaseModel):
    """One row of a published table.

    `match` maps dotted paths into a resolved spec to what must stand there: a value; a list for a
    list in the spec (in any order), or the alternatives for a single value; false also for what
    does not stand there. `memory_gb` and
    `trainable_percent` are the numbers behind the source's wording; `step_seconds` is a training's
    time over its steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    match: dict[str, Any]
    memory: str = ""
    memory_gb: float | None = Field(default=None, gt=0)
    trainable: str = ""
    trainable_percent: float | None = None
    parameters: tuple[int, int] | None = None
    step_seconds: float | None = Field(default=None, gt=0)
    terms: list[Term] = Field(default_factory=list)
    note: str = ""

    def matches(self, spec: dict[str, Any]) -> bool:
        """Whether a resolved spec is the configuration of this row."""
        return meets(spec, self.match)


class PublishedTable(BaseModel):
    """A published table: `model` is the name of the architecture it is about. One with `models` is
    about the mean over as many architectures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    source: str
    model: str = ""
    models: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    rows: list[PublishedRow]

    @property
    def counts(self) -> bool:
        """Whether it is a table of parameter counts, and not of memory."""
        return any(row.parameters for row in self.rows)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published table beside our cells that match its rows, of one source; `said` is which batch
    and length reproduce which rows, where that can be said."""

    published: PublishedTable
    table: Table
    said: str = ""


def load() -> list[PublishedTable]:
    """Every published table the package ships, by file name."""
    folder = files("profiler.report") / "published"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".toml"))
    return [
        PublishedTable.model_validate(tomllib.loads((folder / name).read_text(encoding="utf-8")))
        for name in names
    ]


def compare(cells: Sequence[Cell], tables: Sequence[PublishedTable]) -> list[Comparison]:
    """The published tables that are about models among the cells, ours beside them."""
    result = []
    for published in tables:
        ours = [cell for cell in cells if _is_of(cell, published)]
        for source, group in grouped(ours, lambda cell: cell.source).items():
            if not any(row.matches(cell.record.spec) for row in published.rows for cell in group):
                continue
            table = _table
            if published.models:
                table = published_means.table
            elif published.counts:
                table = published_counts.table
            said = _said(published, group) if table is _table else ""
            result.append(Comparison(published, table(published, group, source), said))
            sums = published_sums.tables(published, group)
            result += [Comparison(published, one) for one in sums]
    return result


def _said(published: PublishedTable, cells: Sequence[Cell]) -> str:
    """Which rows each batch and length reproduces, and which it does not."""
    parts = []
    for workload, group in grouped(cells, lambda cell: cell.workload).items():
        done: list[str] = []
        missed: list[str] = []
        for row in published.rows:
            found = [cell for cell in group if row.matches(cell.record.spec)]
            judged = [cell for cell in found if cell.memory.peak_reserved is not None]
            if row.memory_gb is None or not judged:
                continue
            about = any(_readings(cell.memory.peak_reserved, row.memory_gb) for cell in judged)
            (done if about else missed).append(row.method)
        if not done and not missed:
            continue
        text = f"{workload.capitalize()} reproduces {len(done)} of {len(done) + len(missed)} rows"
        text += f": {listing(done)}" if done else ""
        parts.append(text + (f"; not {listing(missed)}" if missed else "") + ".")
    return " ".join(parts)


def _is_of(cell: Cell, published: PublishedTable) -> bool:
    """Whether a cell is of the published model, as it is and not with other sizes."""
    spec = cell.record.spec
    named = published.models or [published.model]
    return spec.get("model") in named and not spec.get("model_override")


def _table(published: PublishedTable, cells: Sequence[Cell], source: str) -> Table:
    # A CPU's runs are no attempt at the whole table: only what they match is shown.
    on_cards = any(cell.memory.peak_reserved is not None for cell in cells)
    timed = any(row.step_seconds for row in published.rows)
    groups = []
    for row in published.rows:
        matching = [cell for cell in cells if row.matches(cell.record.spec)]
        ours = [
            [*_ours(row, group), *_our_time(row, group[0], timed)] for group in _alike(matching)
        ]
        if not ours and not on_cards:
            continue
        none = [TableField(units.NONE)] * (2 if timed else 0)
        ours = ours or [[*_no_run(), *none]]
        theirs = [*_theirs(row), *_their_time(row, timed)]
        groups.append(Rows(row.method, [theirs, *ours], row.note))
    return Table(
        caption=f"{published.title}: published, and {source} here",
        columns=[
            Column("whose", number=False),
            Column("memory", "GB"),
            *(Column("difference", f"if GB is {name} bytes") for name in READINGS),
            Column("reproduced", f"within {100 * ABOUT:g} %", number=False),
            Column("reserved", "peak, GiB"),
            Column("allocated", "peak, GiB"),
            Column("trainable", "% of all"),
            Column("trainable", "parameters"),
            Column("all", "parameters"),
            *([Column("step time", "ms"), Column("difference", "of the time")] if timed else []),
        ],
        groups=groups,
        source=source,
    )


def _their_time(row: PublishedRow, timed: bool) -> list[TableField]:
    if not timed:
        return []
    if row.step_seconds is None:
        return [TableField(units.NONE)] * 2
    text = units.scaled(row.step_seconds, 1e-3)
    return [TableField(text, row.step_seconds, "published"), TableField(units.NONE)]


def _our_time(row: PublishedRow, cell: Cell, timed: bool) -> list[TableField]:
    """A cell's step time beside a training's time over its steps."""
    if not timed:
        return []
    time = cell.record.time
    if time is None:
        return [TableField(units.NONE)] * 2
    difference = units.NONE
    if row.step_seconds is not None:
        difference = units.signed_percent(time.step / row.step_seconds - 1)
    return [
        TableField(
            units.scaled(time.step, 1e-3), time.step, "seconds", f"{time.step:.6g} s {time.source}"
        ),
        TableField(difference),
    ]


def _alike(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells with the same figures share a row: cards of one kind mostly agree to the byte."""
    with_peak = [cell for cell in cells if cell.peak is not None]
    return list(
        grouped(
            with_peak,
            lambda cell: (
                cell.name,
                cell.workload,
                cell.memory.peak_allocated,
                cell.memory.peak_reserved,
                cell.record.params.trainable if cell.record.params else None,
            ),
        ).values()
    )


def _theirs(row: PublishedRow) -> list[TableField]:
    return [
        TableField("published"),
        TableField(row.memory, row.memory_gb, "published"),
        *[TableField(units.NONE)] * (len(READINGS) + 3),
        TableField(row.trainable or units.NONE, row.trainable_percent, "percent"),
        *[TableField(units.NONE)] * 2,
    ]


def _ours(row: PublishedRow, cells: Sequence[Cell]) -> list[TableField]:
    """Our figures for a row; the memory is the reserved peak, as a card's owner would see it, or
    what was allocated where nothing reserves."""
    cell = cells[0]
    peak, params = cell.peak, cell.record.params
    assert peak is not None
    trainable = [TableField(units.NONE)] * 3
    if params is not None:
        trainable = [
            TableField(
                units.percent(params.trainable, params.total),
                tip=f"{params.trainable:,} of {params.total:,}",
            ),
            TableField(units.count(params.trainable), params.trainable, "count"),
            TableField(units.count(params.total), params.total, "count"),
        ]
    devices = listing(distinct(cell.device for cell in cells))
    kind = "" if cell.memory.peak_reserved is not None else ", allocated"
    return [
        TableField(f"{cell.short}, {cell.workload}, on {devices}{kind}", tip=cell.name),
        TableField(f"{peak / units.GB:.1f} GB", peak, "bytes", units.exact_bytes(peak)),
        *(_difference(peak, row.memory_gb, size) for size in READINGS.values()),
        _reproduced(cell, row.memory_gb),
        memory_field(cell.memory.peak_reserved),
        memory_field(cell.memory.peak_allocated),
        *trainable,
    ]


def _difference(peak: int, published: float | None, size: int) -> TableField:
    """Ours less theirs, `size` being the bytes of their GB."""
    if published is None:
        return TableField(units.NONE)
    absolute = peak / size - published
    size_of_it = f"{abs(absolute):.1f}"
    sign = "" if float(size_of_it) == 0 else units.MINUS if absolute < 0 else "+"
    return TableField(f"{sign}{size_of_it} ({units.signed_percent(absolute / published)})")


def _reproduced(cell: Cell, published: float | None) -> TableField:
    """Under which readings ours is about theirs; a CPU reserves nothing that could be."""
    reserved = cell.memory.peak_reserved
    if published is None or reserved is None:
        return TableField(units.NONE)
    found = _readings(reserved, published)
    if not found:
        return TableField("✗ no", tone="bad")
    return TableField(
        "✓ either way" if len(found) == len(READINGS) else f"✓ {found[0]}", tone="good"
    )


def _readings(reserved: int | None, published: float) -> list[str]:
    """The meanings of a GB by which what was reserved is about what is published."""
    return [
        f"{name} bytes"
        for name, size in READINGS.items()
        if reserved is not None and abs(reserved / size - published) <= ABOUT * published
    ]


def _no_run() -> list[TableField]:
    return [
        TableField("no run of this configuration", tone="muted"),
        *[TableField(units.NONE)] * (len(READINGS) + 7),
    ]


def meets(spec: dict[str, Any], match: dict[str, Any]) -> bool:
    """Whether a resolved spec has what a row's `match` asks for (see `PublishedRow`)."""
    return all(_meets(_at(spec, path), wanted) for path, wanted in match.items())


def _at(spec: dict[str, Any], path: str) -> Any:
    value: Any = spec
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        if isinstance(value, (list, tuple)):
            return sorted(map(str, value)) == sorted(map(str, wanted))
        return value in wanted
    return not value if wanted is False else bool(value == wanted)
