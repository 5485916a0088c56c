"""A published table of means over several models, beside the mean over ours."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.report import units
from profiler.report.cells import Cell, distinct, grouped
from profiler.report.tables import Column, Field, Rows, Table

if TYPE_CHECKING:
    from profiler.report.published import PublishedRow, PublishedTable


def table(published: PublishedTable, cells: Sequence[Cell], source: str) -> Table:
    """Each row's means: of all models that have a result, their number beside them."""
    return Table(
        caption=f"{published.title}: published, and {source} here",
        columns=[
            Column("whose", number=False),
            Column("models"),
            Column("memory", "mean, GB"),
            Column("difference", "if GB is 10⁹ bytes"),
            Column("memory", "smallest to largest, GB"),
            Column("place", "by memory"),
            Column("trainable", "mean, %"),
            Column("trainable", "smallest to largest, %"),
        ],
        groups=[_row(row, published, cells) for row in published.rows],
        source=source,
    )


def _row(row: PublishedRow, published: PublishedTable, cells: Sequence[Cell]) -> Rows:
    theirs = [one for one in published.rows if one.memory_gb is not None]
    order = sorted(theirs, key=lambda one: one.memory_gb or 0.0)
    place = f"{order.index(row) + 1} of {len(order)}" if row in order else units.NONE
    rows = [
        [
            Field("published"),
            Field(units.NONE),
            Field(row.memory, row.memory_gb, "published"),
            *[Field(units.NONE)] * 2,
            Field(place),
            Field(row.trainable or units.NONE, row.trainable_percent, "percent"),
            Field(units.NONE),
        ]
    ]
    of_runs = grouped((cell for cell in cells if cell.peak is not None), _run)
    for run, group in of_runs.items():
        means = {
            one.method: statistics.mean(peaks)
            for one in published.rows
            if (peaks := [cell.peak or 0 for cell in group if one.matches(cell.record.spec)])
        }
        matching = [cell for cell in group if row.matches(cell.record.spec)]
        if matching:
            rows.append(_ours(row, matching, run, means))
    return Rows(row.method, rows, row.note)


def _run(cell: Cell) -> tuple[str, str, str]:
    """What cells have in common whose mean is taken."""
    return cell.workload, str(cell.record.spec.get("weights_dtype", "?")), cell.device


def _ours(
    row: PublishedRow, cells: Sequence[Cell], run: tuple[str, str, str], means: dict[str, float]
) -> list[Field]:
    peaks = [cell.peak or 0 for cell in cells]
    mean = statistics.mean(peaks)
    order = sorted(means, key=lambda name: means[name])
    shares = [
        100 * cell.record.params.trainable / cell.record.params.total
        for cell in cells
        if cell.record.params
    ]
    workload, dtype, device = run
    models = distinct(cell.model for cell in cells)
    difference = units.NONE
    if row.memory_gb is not None:
        difference = units.signed_percent(mean / units.GB / row.memory_gb - 1)
    return [
        Field(f"{workload}, {dtype} weights, on {device}", tip=", ".join(models)),
        Field(str(len(models)), len(models), "count", ", ".join(models)),
        Field(f"{mean / units.GB:.1f} GB", mean, "bytes", units.exact_bytes(round(mean))),
        Field(difference),
        Field(f"{min(peaks) / units.GB:.1f} to {max(peaks) / units.GB:.1f}"),
        Field(f"{order.index(row.method) + 1} of {len(order)}"),
        Field(f"{statistics.mean(shares):.3f}" if shares else units.NONE),
        Field(f"{min(shares):.3f} to {max(shares):.3f}" if shares else units.NONE),
    ]
