"""The page's tables as data: what each cell says, and the exact number behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from profiler.analysis.module_paths import alike
from profiler.record import Holder
from profiler.report import units
from profiler.report.cells import Cell, categories_of, distinct, grouped
from profiler.report.figures import phases_of
from profiler.report.palette import category_label

#: Memory at other moments than a phase's peak, by how it is written.
MOMENTS = {"while loading": "load_peak", "after the step": "after_step_allocated"}

#: What lies outside the allocator's memory, and how it is written.
OUTSIDE = {"cuda_context": "CUDA context", "paged_state": "paged state"}


@dataclass(frozen=True, slots=True)
class Field:
    """One table cell. `exact` is shown on hover and kept as `data-<unit>`."""

    text: str
    exact: int | float | None = None
    unit: str = ""
    tip: str = ""
    tone: str = ""
    code: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column's header; numbers are aligned at the right. `source` says where its figures come
    from, in a table that holds more than one source's."""

    label: str
    unit: str = ""
    number: bool = True
    swatch: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows under a common heading. The first field of a row is its header; `note` is prose."""

    heading: str
    rows: list[list[Field]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one source, or of none where it holds no run's figures."""

    caption: str
    columns: list[Column]
    groups: list[Rows]
    source: str = ""


def memory_field(nbytes: int | None, *, tone: str = "") -> Field:
    """Bytes in GiB; the exact bytes on hover."""
    if nbytes is None:
        return Field(units.NONE)
    tip = units.exact_bytes(nbytes) if nbytes else ""
    return Field(units.gib(nbytes), nbytes, "bytes", tip, tone)


def name_field(cell: Cell) -> Field:
    """A cell's short name, the whole one on hover if it is longer."""
    return Field(cell.short, tip=cell.name if cell.name != cell.short else "", code=True)


def methods(cells: Sequence[Cell]) -> list[Table]:
    """One table per model and source: what each method costs, on every card."""
    return [_methods(group) for group in _by_model(cells)]


def _methods(cells: Sequence[Cell]) -> Table:
    flops = [cell.record.flops.total for cell in cells if cell.record.flops]
    steps = [cell.record.time.step for cell in cells if cell.record.time]
    per_flop, flop_unit = units.flops_unit(flops)
    per_second, second_unit = units.seconds_unit(steps)
    sources = distinct(cell.record.time.source for cell in cells if cell.record.time)
    kind = f", {sources[0]}" if len(sources) == 1 else ""
    varied = len(distinct(cell.workload for cell in cells)) > 1

    def row(cell: Cell) -> list[Field]:
        record, memory = cell.record, cell.memory
        workload = [Field(cell.workload)] if varied else []
        return [
            name_field(cell),
            *workload,
            _status(cell),
            *_parameters(cell),
            memory_field(memory.peak_allocated),
            memory_field(memory.peak_reserved),
            memory_field(memory.device_total),
            _scaled(record.flops.total if record.flops else None, per_flop, "flops", "FLOPs"),
            _step(cell, per_second),
            _fits(cell),
        ]

    columns = [
        Column("method", number=False),
        *([Column("batch × length", number=False)] if varied else []),
        Column("status", number=False),
        Column("trainable"),
        Column("of all", "%"),
        Column("all parameters"),
        Column("allocated", "peak, GiB"),
        Column("reserved", "peak, GiB"),
        Column("device total", "peak, GiB"),
        Column("FLOPs", flop_unit),
        Column("step time", f"{second_unit}{kind}"),
        Column("fits", "GiB"),
    ]
    return Table(
        caption=f"{cells[0].model}: parameters, memory, FLOPs and time of one optimizer step",
        columns=columns,
        groups=_by_device(cells, row),
        source=cells[0].source,
    )


def breakdown(cells: Sequence[Cell]) -> list[Table]:
    """Bytes at the peak by category, one table per model and source."""
    tables = []
    for group in _by_model([cell for cell in cells if cell.drawable]):
        names = categories_of(group)
        beside = [name for name in OUTSIDE if any(_outside(cell, name) for cell in group)]

        def row(cell: Cell, names: list[str] = names, beside: list[str] = beside) -> list[Field]:
            return [
                name_field(cell),
                *(memory_field(cell.memory.at_peak.get(name, 0)) for name in names),
                memory_field(cell.memory.peak_allocated, tone="total"),
                *(memory_field(_outside(cell, name)) for name in beside),
            ]

        tables.append(
            Table(
                caption=f"{group[0].model}: memory at the peak by category",
                columns=[
                    Column("method", number=False),
                    *(Column(category_label(name), "GiB", swatch=name) for name in names),
                    Column("peak allocated", "GiB"),
                    *(Column(f"beside it: {OUTSIDE[name]}", "GiB") for name in beside),
                ],
                groups=_by_device(group, row),
                source=group[0].source,
            )
        )
    return tables


def phases(cells: Sequence[Cell]) -> list[Table]:
    """Peak allocated in each phase of the step, one table per model and source."""
    tables = []
    for group in _by_model([cell for cell in cells if cell.memory.phases]):
        names = phases_of(group)
        moments = {
            label: name
            for label, name in MOMENTS.items()
            if any(getattr(cell.memory, name) is not None for cell in group)
        }

        def row(
            cell: Cell, names: list[str] = names, moments: dict[str, str] = moments
        ) -> list[Field]:
            return [
                name_field(cell),
                *(memory_field(cell.memory.phases.get(name)) for name in names),
                *(memory_field(getattr(cell.memory, name)) for name in moments.values()),
            ]

        tables.append(
            Table(
                caption=f"{group[0].model}: peak allocated in each phase",
                columns=[
                    Column("method", number=False),
                    *(Column(name, "GiB") for name in names),
                    *(Column(label, "GiB") for label in moments),
                ],
                groups=_by_device(group, row),
                source=group[0].source,
            )
        )
    return tables


def fit_matrix(cells: Sequence[Cell]) -> list[Table]:
    """Methods by cards, one table per model: does it fit, and what is left or missing."""
    tables = []
    for group in _by_model([cell for cell in cells if cell.fits is not None]):
        devices = distinct(cell.device for cell in group)
        capacities = {cell.device: cell.record.fits for cell in group}
        by_place = {(cell.name, cell.device): cell for cell in group}
        rows = [
            [
                name_field(same[0]),
                *(
                    _fits(by_place[name, device])
                    if (name, device) in by_place
                    else Field(units.NONE)
                    for device in devices
                ),
            ]
            for name, same in grouped(group, lambda cell: cell.name).items()
        ]
        columns = [Column("method", number=False)]
        for device in devices:
            fits = capacities[device]
            columns.append(Column(device, units.gib_unit(fits.capacity if fits else None)))
        tables.append(
            Table(
                caption=f"{group[0].model}: which method fits on which card",
                columns=columns,
                groups=[Rows("", rows)],
                source=group[0].source,
            )
        )
    return tables


def holders(cell: Cell) -> Table:
    """What is alive at the peak of a cell, largest first; alike blocks of a stack of layers share
    a row, with the layer's number written as `*`."""
    same: dict[tuple[object, ...], list[Holder]] = {}
    for holder in cell.memory.largest_at_peak:
        key = (
            holder.bytes,
            holder.category,
            holder.op,
            alike(holder.module),
            tuple(holder.shape),
            holder.dtype,
            holder.phase,
            holder.source,
        )
        same.setdefault(key, []).append(holder)
    lines = any(holder.source for holder in cell.memory.largest_at_peak)  # earlier records: none
    rows = []
    for group in sorted(same.values(), key=_total, reverse=True):
        first = group[0]
        module = first.module if len(group) == 1 else alike(first.module)
        rows.append(
            [
                Field(category_label(first.category)),
                Field(str(len(group)), len(group), "count"),
                memory_field(first.bytes),
                memory_field(_total(group)),
                Field(module or "(the model)", code=True),
                Field(first.op or units.NONE, code=True),
                Field(" × ".join(map(str, first.shape)) or "scalar"),
                Field(first.dtype),
                Field(first.phase),
                *([Field(first.source or units.NONE, code=True)] if lines else []),
            ]
        )
    return Table(
        caption=f"Largest blocks at the peak: {cell.name}, {cell.model} on {cell.device}",
        columns=[
            Column("category", number=False),
            Column("blocks"),
            Column("each", "GiB"),
            Column("together", "GiB"),
            Column("module", number=False),
            Column("op", number=False),
            Column("shape", number=False),
            Column("dtype", number=False),
            Column("phase", number=False),
            *([Column("source line", number=False)] if lines else []),
        ],
        groups=[Rows("", rows)],
        source=cell.source,
    )


def problems(cells: Sequence[Cell]) -> list[Table]:
    """Cells that are not `ok`, with their reason, one table per source."""
    tables = []
    bad = [cell for cell in cells if cell.record.status != "ok"]
    for source, group in grouped(bad, lambda cell: cell.source).items():
        rows = [
            [
                name_field(cell),
                Field(cell.model),
                Field(cell.device),
                Field(cell.workload),
                _status(cell),
                Field(_reason(cell), tone="long"),
            ]
            for cell in group
        ]
        labels = ("method", "model", "device", "batch × length", "status", "reason")
        tables.append(
            Table(
                caption="Cells without a fitting result",
                columns=[Column(label, number=False) for label in labels],
                groups=[Rows("", rows)],
                source=source,
            )
        )
    return tables


def _reason(cell: Cell) -> str:
    if cell.record.error:
        return cell.record.error
    fits = cell.record.fits
    if cell.record.status == "oom" and fits is not None:
        return (
            f"needs {units.gib_unit(fits.capacity - fits.headroom)} of the card's "
            f"{units.gib_unit(fits.capacity)}"
        )
    return "no reason was recorded"


def _outside(cell: Cell, name: str) -> int:
    return cell.memory.outside_allocator.get(name, 0)


def _by_model(cells: Iterable[Cell]) -> list[list[Cell]]:
    return list(grouped(cells, lambda cell: (cell.model, cell.source)).values())


def _by_device(cells: Sequence[Cell], row: Callable[[Cell], list[Field]]) -> list[Rows]:
    groups = grouped(cells, lambda cell: cell.device)
    result = []
    for device, group in groups.items():
        fits = next((cell.record.fits for cell in group if cell.record.fits), None)
        card = f"{device}, {units.gib_unit(fits.capacity)}" if fits else device
        workloads = distinct(cell.workload for cell in group)
        heading = f"{card}, {workloads[0]}" if len(workloads) == 1 else card
        result.append(Rows(heading, [row(cell) for cell in group]))
    return result


def _status(cell: Cell) -> Field:
    status = cell.record.status
    tone = {"ok": "good", "unsupported": "muted"}.get(status, "bad")
    return Field(status, tip=cell.record.error or "", tone=tone)


def _parameters(cell: Cell) -> list[Field]:
    params = cell.record.params
    if params is None:
        return [Field(units.NONE)] * 3
    share = units.percent(params.trainable, params.total)
    return [
        Field(units.count(params.trainable), params.trainable, "count"),
        Field(share.removesuffix(" %")),
        Field(units.count(params.total), params.total, "count"),
    ]


def _step(cell: Cell, divisor: float) -> Field:
    time = cell.record.time
    if time is None:
        return Field(units.NONE)
    tip = f"{time.step:.6g} s {time.source}, {time.tokens_per_second:,.0f} tokens/s"
    return Field(units.scaled(time.step, divisor), time.step, "seconds", tip)


def _scaled(value: float | None, divisor: float, unit: str, spoken: str) -> Field:
    if value is None:
        return Field(units.NONE)
    tip = f"{value:,} {spoken}" if isinstance(value, int) else f"{value:.6g} {spoken}"
    return Field(units.scaled(value, divisor), value, unit, tip)


def _fits(cell: Cell) -> Field:
    fits = cell.record.fits
    if fits is None:
        return Field(units.NONE)
    size = abs(fits.headroom)
    text = f"yes, {units.gib(size)} free" if fits.headroom >= 0 else f"no, {units.gib(size)} short"
    return Field(
        text,
        fits.headroom,
        "bytes",
        f"headroom {units.exact_bytes(fits.headroom)} of {units.exact_bytes(fits.capacity)}",
        "good" if fits.headroom >= 0 else "bad",
    )


def _total(holders: Sequence[Holder]) -> int:
    return sum(holder.bytes for holder in holders)
