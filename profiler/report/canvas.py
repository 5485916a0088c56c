"""What all figures share: the look, the panel of rows, the notes the page adds to an artist."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiler.report import palette
from profiler.report.cells import Cell
from profiler.report.text import shorten

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


@contextmanager
def style() -> Iterator[None]:
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


def panel(rows: int) -> tuple[Figure, Axes]:
    """A figure as high as its rows need."""
    from matplotlib.figure import Figure

    top, bottom = 0.06, 0.46
    height = top + bottom + rows * ROW_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.02, right=0.97, bottom=bottom / height, top=1 - top / height)
    return figure, axes


def finish(axes: Axes, rows: int, limit: float, unit: str = "GiB") -> None:
    """The axes of a panel of rows, from nothing to `limit` in `unit`."""
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, limit * 1.02)
    # The row's name stands above its bar.
    axes.set_ylim(rows - 1 + 0.4, -0.68)
    axes.set_yticks([])
    axes.set_ylabel("")
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(visible=False, axis="y")
    sns.despine(ax=axes, left=True)


def write_rows(
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
