"""The section "Time": the step by phase, and the ops that take longest."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.analysis.cost_model import BOUNDS
from profiler.record import Kernel, Time
from profiler.report import units
from profiler.report.cells import Cell, distinct, grouped
from profiler.report.figures import timed_phases_of
from profiler.report.tables import Column, Field, Rows, Table, memory_field, name_field

#: Ops that are listed for a cell.
OPS = 10
#: How a run's steps spread, in the order of the columns; further keys follow.
_SPREAD = ("p20", "median", "p80")


def steps(cells: Sequence[Cell]) -> list[Table]:
    """Step time by phase, one table per model and kind: measured and predicted never meet."""
    timed = [cell for cell in cells if cell.record.time]
    return [_steps(group, source) for (_, source), group in grouped(timed, kind).items()]


def kind(cell: Cell) -> tuple[str, str]:
    """What a cell's time may stand beside: the same model's, measured or predicted alike."""
    return cell.model, time_of(cell).source


def time_of(cell: Cell) -> Time:
    """The cell's time, which it must have."""
    time = cell.record.time
    assert time is not None
    return time


def _steps(cells: Sequence[Cell], source: str) -> Table:
    phases = timed_phases_of(cells)
    found = {name for cell in cells for name in time_of(cell).spread or {}}
    spread = [name for name in _SPREAD if name in found] + sorted(found - set(_SPREAD))
    divisor, unit = units.seconds_unit([time_of(cell).step for cell in cells])
    varied = len(distinct(cell.workload for cell in cells)) > 1
    utilised = any(time_of(cell).mfu is not None for cell in cells)
    bounds = [name for name in BOUNDS if any(name in time_of(cell).bound for cell in cells)]

    def row(cell: Cell) -> list[Field]:
        time = time_of(cell)
        return [
            name_field(cell),
            *([Field(cell.workload)] if varied else []),
            _seconds(time.step, divisor, "total"),
            *(_seconds(time.phases.get(name), divisor) for name in phases),
            *(_seconds(time.bound.get(name), divisor) for name in bounds),
            *(_seconds((time.spread or {}).get(name), divisor) for name in spread),
            Field(units.scaled(time.tokens_per_second, 1), time.tokens_per_second, "rate"),
            *([_utilisation(time)] if utilised else []),
        ]

    return Table(
        caption=f"{cells[0].model}: time of one optimizer step",
        columns=[
            Column("method", number=False),
            *([Column("batch × length", number=False)] if varied else []),
            Column("step", unit),
            *(Column(name, unit) for name in phases),
            *(Column(f"bound by {name}", unit) for name in bounds),
            *(Column(f"steps: {name}", unit) for name in spread),
            Column("tokens", "per second"),
            *([Column("model FLOPs utilisation", "%")] if utilised else []),
        ],
        groups=[
            Rows(_heading(group), [row(cell) for cell in group])
            for group in grouped(cells, lambda cell: cell.device).values()
        ],
        source=source,
    )


def _heading(cells: Sequence[Cell]) -> str:
    workloads = distinct(cell.workload for cell in cells)
    device = cells[0].device
    return f"{device}, {workloads[0]}" if len(workloads) == 1 else device


def ops(cell: Cell) -> Table:
    """The ops of a cell that take longest, and all others together."""
    time = time_of(cell)
    ranked = sorted(time.kernels, key=lambda kernel: -kernel.seconds)
    outside = sum(time.outside_kernels.values())
    total = sum(kernel.seconds for kernel in ranked) + outside
    per_second, second = units.seconds_unit([kernel.seconds for kernel in ranked])
    per_flop, flop = units.flops_unit([kernel.flops for kernel in ranked])
    # The profiler and the dispatcher write one name in two ways, `aten::mm` and `aten.mm`.
    named = any(kernel.name.replace("::", ".") != kernel.op for kernel in ranked)

    def numbers(kernels: Sequence[Kernel]) -> list[Field]:
        count, flops, nbytes = (
            sum(getattr(kernel, name) for kernel in kernels) for name in ("count", "flops", "bytes")
        )
        seconds = sum(kernel.seconds for kernel in kernels)
        return [
            Field(units.count(count), count, "count"),
            _seconds(seconds, per_second),
            Field(units.percent(seconds, total).removesuffix(" %")),
            Field(
                units.scaled(flops, per_flop) if flops else "0",
                flops,
                "flops",
                f"{flops:,} FLOPs",
            ),
            memory_field(nbytes),
        ]

    rows = [
        [
            Field(kernel.name if named else kernel.op, code=True),
            *([Field(kernel.op, code=True)] if named else []),
            Field(kernel.phase),
            *numbers([kernel]),
        ]
        for kernel in ranked[:OPS]
    ]
    rest = ranked[OPS:]
    if rest:
        empty = [Field("")] * (2 if named else 1)
        rows.append([Field(f"{len(rest)} others"), *empty, *numbers(rest)])
    if outside:
        share = Field(units.percent(outside, total).removesuffix(" %"))
        none = [Field(units.NONE)] * 3
        named_by = [Field("outside kernels"), *([Field("")] if named else []), Field("")]
        rows.append([*named_by, none[0], _seconds(outside, per_second), share, *none[1:]])
    return Table(
        caption=f"Heaviest ops: {cell.name}, {cell.model} on {cell.device}, {cell.workload}",
        columns=[
            Column("kernel" if named else "op", number=False),
            *([Column("op", number=False)] if named else []),
            Column("phase", number=False),
            Column("count"),
            Column("time", second),
            Column("share", "%"),
            Column("FLOPs", flop),
            Column("bytes", "GiB"),
        ],
        groups=[Rows("", rows)],
        source=time.source,
    )


def _utilisation(time: Time) -> Field:
    if time.mfu is None:
        return Field(units.NONE)
    return Field(units.percent(time.mfu, 1).removesuffix(" %"), time.mfu, "share")


def _seconds(seconds: float | None, divisor: float, tone: str = "") -> Field:
    if seconds is None:
        return Field(units.NONE)
    text = units.scaled(seconds, divisor)
    if seconds and float(text.replace(",", "")) == 0:
        text = "<0.01"
    return Field(text, seconds, "seconds", f"{seconds:.6g} s", tone)
