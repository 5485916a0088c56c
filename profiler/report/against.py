"""Cells against their baseline as tables: differences in bytes by category, FLOPs and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from profiler.record import Record
from profiler.report import units
from profiler.report.baseline import Against, options, otherwise
from profiler.report.cells import Cell, categories_of
from profiler.report.figures import in_order, phases_of, timed_phases_of
from profiler.report.palette import category_label
from profiler.report.tables import Column, Field, Rows, Table

#: A column whose largest entry is below this many bytes is in MiB.
_SMALL = units.GIB // 10

Value = int | float | None


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column: what is read off a record, and the unit of its exact value."""

    label: str
    kind: str
    read: Callable[[Record], Value]
    swatch: str = ""
    share: bool = False


def tables(comparisons: Sequence[Against]) -> list[Table]:
    """Two tables for each model and source: bytes by category, and the phases of the step."""
    result = []
    groups: dict[tuple[str, str], list[Against]] = {}
    for found in comparisons:
        groups.setdefault((found.base.model, found.base.source), []).append(found)
    for (model, _), group in groups.items():
        for title, columns in (
            ("parameters and memory at the peak by category", _memory(group)),
            ("FLOPs, time and peak memory by phase", _phases(group)),
        ):
            if columns:
                result.append(_table(f"{model}, against a baseline: {title}", group, columns))
    return result


def _memory(group: Sequence[Against]) -> list[Quantity]:
    cells = _cells(group)
    columns = [Quantity("peak allocated", "bytes", _allocated, share=True)]
    if any(cell.memory.peak_reserved is not None for cell in cells):
        columns.append(Quantity("peak reserved", "bytes", _reserved))
    categories = [name for name in categories_of(cells) if _most(group, _category(name))]
    columns += [
        Quantity(category_label(name), "bytes", _category(name), swatch=name)
        for name in sorted(categories, key=lambda name: -_most(group, _category(name)))
    ]
    return [*columns, Quantity("trainable", "count", _trainable, share=True)]


def _phases(group: Sequence[Against]) -> list[Quantity]:
    cells = _cells(group)
    columns = []
    if any(cell.record.flops for cell in cells):
        columns.append(Quantity("FLOPs", "flops", _flops, share=True))
        columns += [
            Quantity(f"FLOPs: {name}", "flops", _flops_of(name))
            for name in in_order(
                name for cell in cells if cell.record.flops for name in cell.record.flops.phases
            )
            if _most(group, _flops_of(name))
        ]
    if any(cell.record.time for cell in cells):
        columns.append(Quantity("step time", "seconds", _seconds, share=True))
        columns += [
            Quantity(f"time: {name}", "seconds", _seconds_of(name))
            for name in timed_phases_of(cells)
            if _most(group, _seconds_of(name))
        ]
    return columns + [
        Quantity(f"peak: {name}", "bytes", _peak_of(name))
        for name in phases_of(cells)
        if _most(group, _peak_of(name))
    ]


def _table(caption: str, group: Sequence[Against], columns: Sequence[Quantity]) -> Table:
    cells = _cells(group)
    scales = [_scale(cells, column) for column in columns]
    settings = any(_settings(cell, found.base) for found in group for cell in found.others)
    rows = []
    for found in group:
        base, sizes = found.base, [size for size, _ in scales]
        lines = [
            [
                Field(f"{found.name(base)} (baseline)", tip=base.name, code=True),
                *map(partial(_absolute, base), columns, sizes),
                *([Field(units.NONE)] if settings else []),
            ]
        ]
        for cell in found.others:
            line = [
                Field(found.name(cell), tip=cell.name, code=True),
                *map(partial(_difference, cell, base), columns, sizes),
                *([Field(_settings(cell, base) or units.NONE)] if settings else []),
            ]
            lines.append(line)
        heading = f"{base.device}, {base.workload}: less or more than {base.short}"
        rows.append(Rows(heading, lines))
    kinds = {cell.record.time.source for cell in cells if cell.record.time}
    kind = f", {kinds.pop()}" if len(kinds) == 1 else ""
    return Table(
        caption=caption,
        columns=[
            Column("method", number=False),
            *(
                Column(
                    column.label,
                    unit + (kind if column.kind == "seconds" else ""),
                    swatch=column.swatch,
                )
                for column, (_, unit) in zip(columns, scales, strict=True)
            ),
            *([Column("set otherwise", number=False)] if settings else []),
        ],
        groups=rows,
        source=cells[0].source,
    )


def _settings(cell: Cell, base: Cell) -> str:
    """What is set otherwise than in the baseline: of the run, then of the adapter."""
    run = [f"{name} {ours}" for name, (ours, _) in otherwise(cell, base).items()]
    adapter = [f"{name} {value}" for name, value in options(cell, base).items()]
    return ", ".join(run + adapter)


def _absolute(base: Cell, column: Quantity, size: float) -> Field:
    value = column.read(base.record)
    if value is None:
        return Field(units.NONE)
    return Field(_text(column, value, size), value, column.kind, _tip(column, value))


def _difference(cell: Cell, base: Cell, column: Quantity, size: float) -> Field:
    """Ours less the baseline's; the share of the baseline's where the column shows it."""
    ours, theirs = column.read(cell.record), column.read(base.record)
    if ours is None or theirs is None:
        return Field(units.NONE)
    value = ours - theirs
    text = units.signed(value, _text(column, abs(value), size))
    if column.share and value and theirs:
        text += f" ({_share(value / theirs)})"
    tone = "total" if column.label == "peak allocated" else ""
    return Field(text, value, column.kind, units.signed(value, _tip(column, abs(value))), tone)


def _share(value: float) -> str:
    """A relative difference; what is nearly all is not written as all."""
    if -1 < value < -0.99:
        return f"{units.MINUS}{units.percent(-value, 1)}"
    return units.fine_percent(value)


def _text(column: Quantity, value: float, size: float) -> str:
    if column.kind == "count":
        return units.count(int(value))
    text = units.scaled(value, size)
    if text == "0.00":
        return "<0.01" if value else "0"
    return text


def _tip(column: Quantity, value: float) -> str:
    if column.kind == "seconds":
        return f"{value:.6g} s"
    return f"{value:,} {'FLOPs' if column.kind == 'flops' else column.kind}".replace(" count", "")


def _scale(cells: Sequence[Cell], column: Quantity) -> tuple[float, str]:
    """Divisor and unit of a column: that in which its largest entry reads well."""
    values = [value for cell in cells if (value := column.read(cell.record)) is not None]
    if column.kind == "count":
        return 1, ""
    if column.kind == "flops":
        return units.flops_unit([int(value) for value in values])
    if column.kind == "seconds":
        return units.seconds_unit(values)
    return (2**20, "MiB") if max(values, default=0) < _SMALL else (units.GIB, "GiB")


def _cells(group: Sequence[Against]) -> list[Cell]:
    return [cell for found in group for cell in (found.base, *found.others)]


def _most(group: Sequence[Against], read: Callable[[Record], Value]) -> float:
    """The largest difference from a baseline, without its sign."""
    return max(
        abs((read(cell.record) or 0) - (read(found.base.record) or 0))
        for found in group
        for cell in found.others
    )


def _trainable(record: Record) -> Value:
    return record.params.trainable if record.params else None


def _allocated(record: Record) -> Value:
    return record.memory.peak_allocated


def _reserved(record: Record) -> Value:
    return record.memory.peak_reserved


def _category(name: str) -> Callable[[Record], Value]:
    return lambda record: record.memory.at_peak.get(name, 0) if record.memory.at_peak else None


def _flops(record: Record) -> Value:
    return record.flops.total if record.flops else None


def _flops_of(name: str) -> Callable[[Record], Value]:
    return lambda record: record.flops.phases.get(name, 0) if record.flops else None


def _seconds(record: Record) -> Value:
    return record.time.step if record.time else None


def _seconds_of(name: str) -> Callable[[Record], Value]:
    return lambda record: record.time.phases.get(name, 0.0) if record.time else None


def _peak_of(name: str) -> Callable[[Record], Value]:
    return lambda record: record.memory.phases.get(name)
