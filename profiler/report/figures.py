"""The figures, drawn with seaborn and matplotlib. Each takes cells of one source and one device.

A figure is built as data first (`matplotlib.figure.Figure`, whose artists tests read) and turned
into inline SVG by `profiler.report.svg`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiler.report import palette
from profiler.report.cells import Cell, categories_of, distinct
from profiler.report.text import shorten
from profiler.report.units import GIB, exact_bytes, gib, gib_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A panel as wide as a phone's screen at a font size that can be read there.
WIDTH_INCHES = 4.1
ROW_INCHES = 0.45
FONT_POINTS = 9.0
#: Characters of a method's name beside its value in a panel.
NAME_CHARACTERS = 30
BAR = 0.42

BASE = "base_parameters"
STEP_PHASES = ("forward", "backward", "optimizer")


@dataclass(frozen=True, slots=True)
class Note:
    """What the page adds to one artist: a tooltip and data attributes."""

    title: str
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure, its notes by the artists' gid, and its text alternative."""

    figure: Figure
    notes: dict[str, Note]
    label: str


def breakdown(cells: Sequence[Cell], *, limit: int | None = None) -> Drawing:
    """Stacked bars of the memory at the peak by category, one per cell, with what the allocator
    reserved and the card's capacity.

    Args:
        cells: drawable cells of one model, source and device.
        limit: bytes at the axis' end, to make panels comparable; None takes the cells' own.
    """
    from matplotlib.patheffects import withStroke

    notes: dict[str, Note] = {}
    with _style():
        figure, axes = _panel(len(cells))
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
        _finish(axes, len(cells), limit or extent(cells))
        _rows(axes, cells, [_need(cell) for cell in cells], notes)
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
    with _style():
        figure, axes = _panel(len(cells))
        _stack(axes, cells, names, notes)
        _finish(axes, len(cells), limit or max(1, *(rest(cell) for cell in cells)))
        _rows(axes, cells, [(value, palette.TEXT) for value in values], notes)
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
    with _style():
        figure, axes = _panel(len(cells))
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
        _finish(axes, len(cells), limit or extent(cells, capacity=False))
        _rows(axes, cells, [(_highest(cell), palette.TEXT) for cell in cells], notes)
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
    """The phases of the cells, the training step's first and in its order."""
    found = distinct(name for cell in cells for name in cell.memory.phases)
    return [name for name in STEP_PHASES if name in found] + sorted(set(found) - set(STEP_PHASES))


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


@contextmanager
def _style() -> Iterator[None]:
    """The look of every figure, without touching the caller's settings."""
    import matplotlib as mpl
    import seaborn as sns

    settings: dict[str, Any] = {
        **sns.axes_style("whitegrid"),
        "font.family": "sans-serif",
        "font.size": FONT_POINTS,
        "xtick.labelsize": FONT_POINTS,
        "axes.labelsize": FONT_POINTS,
        "axes.edgecolor": palette.EDGE.light,
        "axes.labelcolor": palette.MUTED.light,
        "xtick.color": palette.EDGE.light,
        "xtick.labelcolor": palette.MUTED.light,
        "text.color": palette.TEXT.light,
        "grid.color": palette.RULE.light,
        "grid.linewidth": 0.7,
        # A `$` in a name is a dollar.
        "text.parse_math": False,
        "text.usetex": False,
        "axes.unicode_minus": True,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # Names may hold characters that the measuring font lacks; the browser's has them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


def _panel(rows: int) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    top, bottom = 0.06, 0.46
    height = top + bottom + rows * ROW_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.02, right=0.97, bottom=bottom / height, top=1 - top / height)
    return figure, axes


def _finish(axes: Axes, rows: int, limit: int) -> None:
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, limit / GIB * 1.02)
    # The row's name stands above its bar.
    axes.set_ylim(rows - 1 + 0.4, -0.68)
    axes.set_yticks([])
    axes.set_ylabel("")
    axes.set_xlabel("GiB")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(visible=False, axis="y")
    sns.despine(ax=axes, left=True)


def _rows(
    axes: Axes,
    cells: Sequence[Cell],
    values: Sequence[tuple[str, palette.Role]],
    notes: dict[str, Note],
) -> None:
    """Each row's name at the left and its value at the right, above the bar."""
    for row, (cell, (value, role)) in enumerate(zip(cells, values, strict=True)):
        name = axes.text(
            0.0,
            row - BAR / 2 - 0.09,
            shorten(cell.short, NAME_CHARACTERS),
            transform=axes.get_yaxis_transform(),
            ha="left",
            va="bottom",
            color=palette.TEXT.light,
        )
        name.set_gid(f"{cell.key}-name")
        notes[f"{cell.key}-name"] = Note(cell.name)
        axes.text(
            1.0,
            row - BAR / 2 - 0.09,
            value,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="bottom",
            color=role.light,
        )
