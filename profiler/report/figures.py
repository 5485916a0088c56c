"""The figures, drawn with seaborn and matplotlib. Each takes cells of one source and one device.

A figure is built as data first (`matplotlib.figure.Figure`, whose artists tests read) and turned
into inline SVG by `profiler.report.svg`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from profiler.analysis.cost_model import BOUNDS
from profiler.report import palette
from profiler.report.canvas import BAR, Drawing, Note, finish, panel, style, write_rows
from profiler.report.cells import Cell, categories_of
from profiler.report.text import shorten
from profiler.report.units import (
    GIB,
    exact_bytes,
    flops_unit,
    gib,
    gib_unit,
    scaled,
    seconds_unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASE = "base_parameters"
STEP_PHASES = ("forward", "backward", "optimizer")


def breakdown(cells: Sequence[Cell], *, limit: int | None = None) -> Drawing:
    """Stacked bars of the memory at the peak by category, one per cell, with what the allocator
    reserved and the card's capacity.

    Args:
        cells: drawable cells of one model, source and device.
        limit: bytes at the axis' end, to make panels comparable; None takes the cells' own.
    """
    from matplotlib.patheffects import withStroke

    notes: dict[str, Note] = {}
    with style():
        figure, axes = panel(len(cells))
        _stack(axes, cells, categories_of(cells), notes)
        for row, cell in enumerate(cells):
            reserved = cell.memory.peak_reserved
            if reserved is None:
                continue
            (tick,) = axes.plot(
                [reserved / GIB] * 2,
                [row - BAR / 2 - 0.06, row + BAR / 2 + 0.06],
                color=palette.TEXT.light,
                linewidth=1.6,
                solid_capstyle="butt",
            )
            tick.set_gid(f"{cell.key}-reserved")
            notes[f"{cell.key}-reserved"] = Note(
                f"{cell.name}: peak reserved {_tip(reserved)}",
                {"cell": cell.key, "bytes": str(reserved)},
            )
        capacity = _capacity(cells)
        if capacity is not None:
            # In pieces beside the bars, so that it crosses no text.
            line = axes.vlines(
                [capacity / GIB] * len(cells),
                [row - BAR / 2 - 0.09 for row in range(len(cells))],
                [row + BAR / 2 + 0.09 for row in range(len(cells))],
                color=palette.CAPACITY.light,
                linewidth=1.6,
                # Bars of any colour lie behind it.
                path_effects=[withStroke(linewidth=4, foreground=palette.PAGE.light)],
            )
            line.set_gid("capacity")
            notes["capacity"] = Note(
                f"{cells[0].device}: capacity {_tip(capacity)}", {"bytes": str(capacity)}
            )
        finish(axes, len(cells), (limit or extent(cells)) / GIB)
        write_rows(axes, cells, [_need(cell) for cell in cells], notes)
    what = "; ".join(
        f"{cell.short}: {gib_unit(cell.memory.peak_allocated)} allocated, {_need(cell)[0]}"
        for cell in cells
    )
    roof = f" The card holds {gib_unit(capacity)}." if capacity is not None else ""
    return Drawing(
        figure,
        notes,
        f"Stacked bars, {cells[0].source}: memory at the peak by category, {cells[0].model} on "
        f"{cells[0].device}.{roof} {what}.",
    )


def beside_base(cells: Sequence[Cell], *, limit: int | None = None) -> Drawing:
    """As `breakdown`, without the base parameters: what the method itself and the step hold.

    Args: as in `breakdown`.
    """
    notes: dict[str, Note] = {}
    names = [name for name in categories_of(cells) if name != BASE]
    values = [gib_unit(rest(cell), 2) for cell in cells]
    with style():
        figure, axes = panel(len(cells))
        _stack(axes, cells, names, notes)
        finish(axes, len(cells), (limit or max(1, *(rest(cell) for cell in cells))) / GIB)
        write_rows(axes, cells, [(value, palette.TEXT) for value in values], notes)
    what = "; ".join(f"{cell.short}: {value}" for cell, value in zip(cells, values, strict=True))
    return Drawing(
        figure,
        notes,
        f"Stacked bars, {cells[0].source}: memory at the peak beside the base parameters, by "
        f"category, {cells[0].model} on {cells[0].device}. {what}.",
    )


def rest(cell: Cell) -> int:
    """Bytes allocated at the peak beside the base parameters."""
    return (cell.memory.peak_allocated or 0) - cell.memory.at_peak.get(BASE, 0)


def _stack(
    axes: Axes, cells: Sequence[Cell], categories: Sequence[str], notes: dict[str, Note]
) -> None:
    """One stacked bar per cell."""
    left = [0.0] * len(cells)
    for index, name in enumerate(categories):
        sizes = [cell.memory.at_peak.get(name, 0) for cell in cells]
        bars = axes.barh(
            range(len(cells)),
            [nbytes / GIB for nbytes in sizes],
            BAR,
            left=left,
            label=name,
            color=palette.category_role(name).light,
            edgecolor=palette.EDGE.light,
            linewidth=0.5,
            clip_on=False,
        )
        left = [start + nbytes / GIB for start, nbytes in zip(left, sizes, strict=True)]
        for cell, bar, nbytes in zip(cells, bars, sizes, strict=True):
            bar.set_visible(nbytes > 0)
            gid = f"{cell.key}-memory-{index}"
            bar.set_gid(gid)
            notes[gid] = Note(
                f"{cell.name}: {palette.category_label(name)} {_tip(nbytes)}",
                {"cell": cell.key, "category": name, "bytes": str(nbytes)},
            )


def phases(
    cells: Sequence[Cell], *, limit: int | None = None, order: Sequence[str] = ()
) -> Drawing:
    """Bars of the peak allocated in each phase of the step, one group per cell.

    Args:
        cells: cells of one model, source and device that have phases.
        limit: as in `breakdown`.
        order: every phase of the panels that share a legend; a phase's colour is its place in it.
    """
    import pandas as pd
    import seaborn as sns

    names = phases_of(cells)
    order = order or names
    # A phase's place stands for its name, which may hold what pandas' strings cannot.
    hues = [str(index) for index in range(len(names))]
    rows = [
        (cell.key, hue, cell.memory.phases[name])
        for cell in cells
        for hue, name in zip(hues, names, strict=True)
        if name in cell.memory.phases
    ]
    frame = pd.DataFrame(
        {
            # seaborn 0.13 draws hue columns of pandas 3's string dtype wrong: object it is.
            "cell": pd.Series([row[0] for row in rows], dtype=object),
            "phase": pd.Series([row[1] for row in rows], dtype=object),
            "gib": [row[2] / GIB for row in rows],
        }
    )
    notes: dict[str, Note] = {}
    with style():
        figure, axes = panel(len(cells))
        sns.barplot(
            data=frame,
            x="gib",
            y="cell",
            hue="phase",
            order=[cell.key for cell in cells],
            hue_order=hues,
            palette=[palette.phase_role(order.index(name)).light for name in names],
            saturation=1,
            errorbar=None,
            width=BAR * 1.15,
            edgecolor=palette.EDGE.light,
            linewidth=0.5,
            legend=False,
            orient="h",
            ax=axes,
        )
        for index, (name, bars) in enumerate(zip(names, axes.containers, strict=True)):
            present = [cell for cell in cells if name in cell.memory.phases]
            for cell, bar in zip(present, bars, strict=True):
                nbytes = cell.memory.phases[name]
                gid = f"{cell.key}-phase-{index}"
                bar.set_gid(gid)
                notes[gid] = Note(
                    f"{cell.name}: peak in {name} {_tip(nbytes)}",
                    {"cell": cell.key, "phase": name, "bytes": str(nbytes)},
                )
        finish(axes, len(cells), (limit or extent(cells, capacity=False)) / GIB)
        write_rows(axes, cells, [(_highest(cell), palette.TEXT) for cell in cells], notes)
    what = "; ".join(
        f"{cell.short}: "
        + ", ".join(f"{name} {gib_unit(size)}" for name, size in cell.memory.phases.items())
        for cell in cells
    )
    return Drawing(
        figure,
        notes,
        f"Bars, {cells[0].source}: peak allocated in each phase of the step, {cells[0].model} on "
        f"{cells[0].device}. {what}.",
    )


def phases_of(cells: Sequence[Cell]) -> list[str]:
    """The phases of the cells' memory, the training step's first and in its order."""
    return in_order(name for cell in cells for name in cell.memory.phases)


def timed_phases_of(cells: Sequence[Cell]) -> list[str]:
    """The phases of the cells' time, in the same order."""
    return in_order(name for cell in cells if cell.record.time for name in cell.record.time.phases)


def in_order(phases: Iterable[str]) -> list[str]:
    """Each phase once, the training step's first and in its order."""
    found = set(phases)
    return [name for name in STEP_PHASES if name in found] + sorted(found - set(STEP_PHASES))


def durations(
    cells: Sequence[Cell], *, limit: float | None = None, order: Sequence[str] = ()
) -> Drawing:
    """Stacked bars of the step's time by phase, one per cell.

    Args:
        cells: cells of one model and device whose times are of one source.
        limit: seconds at the axis' end, to make panels comparable; None takes the cells' own.
        order: as in `phases`.
    """
    return _of_time(cells, "phase", limit, order or timed_phases_of(cells))


def bounds(
    cells: Sequence[Cell], *, limit: float | None = None, order: Sequence[str] = ()
) -> Drawing:
    """As `durations`, by what decides each moment of a predicted step: launch, memory, compute."""
    return _of_time(cells, "bound", limit, order or BOUNDS)


def _of_time(
    cells: Sequence[Cell], kind: str, limit: float | None, order: Sequence[str]
) -> Drawing:
    times = [cell.record.time for cell in cells if cell.record.time]
    assert len(times) == len(cells)
    limit = limit or longest(cells)
    divisor, unit = seconds_unit([limit])
    return _stacked(
        cells,
        [time.phases if kind == "phase" else time.bound for time in times],
        order,
        limit=limit,
        divisor=divisor,
        unit=unit,
        gid="time" if kind == "phase" else "bound",
        note=lambda name, seconds: (
            f"{name} {seconds:.6g} s {times[0].source}",
            {kind: name, "seconds": repr(seconds)},
        ),
        totals=[time.step for time in times],
        label=f"{times[0].source}: time of one optimizer step by "
        + ("phase" if kind == "phase" else "what bounds it"),
    )


def work(
    cells: Sequence[Cell], *, limit: float | None = None, order: Sequence[str] = ()
) -> Drawing:
    """Stacked bars of the step's FLOPs by phase, one per cell.

    Args:
        cells: cells of one model and device with FLOPs.
        limit: FLOPs at the axis' end; None takes the cells' own.
        order: as in `phases`.
    """
    counts = [cell.record.flops for cell in cells if cell.record.flops]
    assert len(counts) == len(cells)
    most = max(1, *(one.total for one in counts))
    divisor, unit = flops_unit([most])
    return _stacked(
        cells,
        [one.phases for one in counts],
        order or counted_phases_of(cells),
        limit=limit or most,
        divisor=divisor,
        unit=unit,
        gid="flops",
        note=lambda name, flops: (f"{name} {flops:,} FLOPs", {"phase": name, "flops": str(flops)}),
        totals=[one.total for one in counts],
        label=f"{cells[0].source}: FLOPs of one optimizer step by phase",
    )


def counted_phases_of(cells: Sequence[Cell]) -> list[str]:
    """The phases of the cells' FLOPs, in the order of `phases_of`."""
    return in_order(
        name for cell in cells if cell.record.flops for name in cell.record.flops.phases
    )


Size = TypeVar("Size", int, float)


def _stacked(
    cells: Sequence[Cell],
    sizes: Sequence[Mapping[str, Size]],
    order: Sequence[str],
    *,
    limit: float,
    divisor: float,
    unit: str,
    gid: str,
    note: Callable[[str, Size], tuple[str, dict[str, str]]],
    totals: Sequence[Size],
    label: str,
) -> Drawing:
    """Stacked bars of anything that a step consists of; the parts' colours go by their place in
    `order`, and `note` is what hovering over one says and its data attributes."""
    notes: dict[str, Note] = {}
    values = [f"{scaled(total, divisor)} {unit}" for total in totals]
    with style():
        figure, axes = panel(len(cells))
        left = [0.0] * len(cells)
        for index, name in enumerate(order):
            parts = [one.get(name, 0) for one in sizes]
            bars = axes.barh(
                range(len(cells)),
                [part / divisor for part in parts],
                BAR,
                left=[start / divisor for start in left],
                label=name,
                color=palette.phase_role(index).light,
                edgecolor=palette.EDGE.light,
                linewidth=0.5,
                clip_on=False,
            )
            left = [start + part for start, part in zip(left, parts, strict=True)]
            for cell, bar, part in zip(cells, bars, parts, strict=True):
                bar.set_visible(part > 0)
                bar.set_gid(f"{cell.key}-{gid}-{index}")
                text, data = note(name, part)
                notes[f"{cell.key}-{gid}-{index}"] = Note(
                    f"{cell.name}: {text}", {"cell": cell.key, **data}
                )
        finish(axes, len(cells), limit / divisor, unit)
        write_rows(axes, cells, [(value, palette.TEXT) for value in values], notes)
    what = "; ".join(f"{cell.short}: {value}" for cell, value in zip(cells, values, strict=True))
    return Drawing(
        figure,
        notes,
        f"Stacked bars, {label}, {cells[0].model} on {cells[0].device}. {what}.",
    )


def longest(cells: Sequence[Cell]) -> float:
    """The seconds of the longest bar of the cells."""
    times = [cell.record.time for cell in cells if cell.record.time]
    return max([1e-9, *(max(time.step, sum(time.phases.values())) for time in times)])


def extent(cells: Sequence[Cell], *, capacity: bool = True) -> int:
    """The largest number of bytes that a panel of the cells shows."""
    values = [1]
    for cell in cells:
        values += [cell.memory.peak_allocated or 0, *cell.memory.phases.values()]
        if capacity:
            fits = cell.record.fits
            values += [cell.memory.peak_reserved or 0, fits.capacity if fits else 0]
    return max(values)


def _capacity(cells: Sequence[Cell]) -> int | None:
    return max((cell.record.fits.capacity for cell in cells if cell.record.fits), default=None)


def _need(cell: Cell) -> tuple[str, palette.Role]:
    text = gib_unit(cell.peak)
    return (f"{text}, does not fit", palette.BAD) if cell.fits is False else (text, palette.TEXT)


def _highest(cell: Cell) -> str:
    if not cell.memory.phases:
        return gib_unit(cell.memory.peak_allocated)
    name = max(cell.memory.phases, key=lambda phase: cell.memory.phases[phase])
    return f"{gib_unit(cell.memory.phases[name])} in {shorten(name, 16)}"


def _tip(nbytes: int) -> str:
    return f"{gib(nbytes)} GiB ({exact_bytes(nbytes)})"
