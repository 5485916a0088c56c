"""A published sum (so many bytes for the model, so many for gradients) beside what a record holds.

The difference is explained by category, from the record: what the sum leaves out, and what lies
outside the allocator's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.report import units
from profiler.report.cells import Cell, categories_of
from profiler.report.palette import category_label
from profiler.report.tables import OUTSIDE, Column, Field, Rows, Table
from profiler.report.text import listing

if TYPE_CHECKING:
    from profiler.report.published import PublishedRow, PublishedTable

#: Parts below this share of the peak are one row, "the rest".
SMALL = 0.001


def tables(published: PublishedTable, cells: Sequence[Cell]) -> list[Table]:
    """One table for each row that is a sum: a group for each of our cells that match it."""
    result = []
    for row in published.rows:
        ours = [cell for cell in cells if cell.drawable and row.matches(cell.record.spec)]
        if not row.terms or not ours:
            continue
        result.append(
            Table(
                caption=f"{row.method}: the published sum, term by term",
                columns=[
                    Column("what", number=False),
                    Column("published", "10⁹ bytes"),
                    Column("here", "10⁹ bytes"),
                    Column("difference", "10⁹ bytes"),
                    Column("here", "GiB"),
                    Column("largest block of it", number=False),
                ],
                groups=[
                    Rows(f"{cell.short} on {cell.device}, {cell.workload}", *_rows(row, cell))
                    for cell in ours
                ],
                source=ours[0].source,
            )
        )
    return result


def _rows(row: PublishedRow, cell: Cell) -> tuple[list[list[Field]], str]:
    memory = cell.memory
    assert memory.peak_allocated is not None
    taken = {name for term in row.terms for name in term.categories}
    rows = [
        _line(
            term.what,
            term.gb,
            sum(memory.at_peak.get(name, 0) for name in term.categories),
            _largest(cell, term.categories),
        )
        for term in row.terms
    ]
    published = sum(term.gb for term in row.terms)
    counted = sum(memory.at_peak.get(name, 0) for name in taken)
    rows.append(_line("the sum", published, counted, tone="total"))
    left = [name for name in categories_of([cell]) if name not in taken]
    least = SMALL * memory.peak_allocated
    large = sorted(
        (name for name in left if memory.at_peak[name] >= least),
        key=lambda name: -memory.at_peak[name],
    )
    rows += [
        _line(category_label(name), None, memory.at_peak[name], _largest(cell, [name]))
        for name in large
    ]
    small = sum(memory.at_peak[name] for name in left if name not in large)
    if small:
        rows.append(_line("the rest", None, small))
    rows.append(_line("allocated at the peak", published, memory.peak_allocated, tone="total"))
    beyond: list[str] = []
    reached = memory.peak_allocated
    if memory.peak_reserved is not None:
        spare = memory.peak_reserved - reached
        rows.append(_line("reserved beyond it", None, spare))
        beyond.append(f"{_gb(spare)} that the allocator reserves beyond it")
        reached = memory.peak_reserved
    for name, label in OUTSIDE.items():
        outside = memory.outside_allocator.get(name, 0)
        if outside and name == "cuda_context":
            rows.append(_line(f"the {label}", None, outside))
            beyond.append(f"{_gb(outside)} of {label}")
            reached += outside
    if beyond:
        rows.append(_line("on the device", published, reached, tone="total"))
    return rows, _words(cell, counted, published, large, small, beyond)


def _words(
    cell: Cell, counted: int, published: float, large: list[str], small: int, beyond: list[str]
) -> str:
    """The difference in words: what the terms make here, and what comes on top."""
    parts = [f"{_gb(cell.memory.at_peak[name])} of {category_label(name)}" for name in large]
    if small:
        parts.append(f"{_gb(small)} of the rest")
    text = (
        f"In GB of 10⁹ bytes: the terms themselves make {_gb(counted)} here, against "
        f"{published:.1f} published."
    )
    if parts:
        text += f" On top come, at the same moment, {listing(parts)}."
    if beyond:
        text += f" Beside what is allocated there are {listing(beyond)}."
    absent = [
        category_label(name)
        for name in ("activations", "logits_and_loss")
        if cell.memory.at_peak.get(name, 0) < SMALL * (cell.memory.peak_allocated or 0)
    ]
    phases = cell.memory.phases
    if absent and phases:
        where = max(phases, key=lambda name: phases[name])
        text += (
            f" The peak is in the {where}, and next to nothing is left then of "
            f"{' or of '.join(absent)}."
        )
    return text


def _line(
    what: str, published: float | None, ours: int, largest: str = "", tone: str = ""
) -> list[Field]:
    difference = Field(units.NONE)
    if published is not None:
        apart = ours / units.GB - published
        size = f"{abs(apart):.2f}"
        sign = units.signed(apart if float(size) else 0, size)
        difference = Field(f"{sign} ({units.fine_percent(apart / published)})")
    return [
        Field(what),
        Field(f"{published:.1f}", published, "published") if published else Field(units.NONE),
        Field(_number(ours), ours, "bytes", units.exact_bytes(ours), tone),
        difference,
        Field(units.gib(ours), ours, "bytes", units.exact_bytes(ours)),
        Field(largest or units.NONE, code=bool(largest)),
    ]


def _largest(cell: Cell, categories: Sequence[str]) -> str:
    """Op and module of the largest block of some categories, if the record names one."""
    blocks = [item for item in cell.memory.largest_at_peak if item.category in categories]
    if not blocks:
        return ""
    block = max(blocks, key=lambda item: item.bytes)
    return f"{block.op}, {block.module}" if block.module else block.op


def _number(nbytes: int) -> str:
    text = f"{nbytes / units.GB:.2f}"
    return "<0.01" if nbytes and float(text) == 0 else text


def _gb(nbytes: int) -> str:
    return f"{_number(nbytes)} GB"
