"""The figures of a validation: predicted against measured, and the error of every case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.report import palette
from profiler.report.canvas import (
    BAR,
    NAME_CHARACTERS,
    WIDTH_INCHES,
    Drawing,
    Note,
    panel,
    style,
)
from profiler.report.text import shorten
from profiler.report.units import GIB, fine_percent
from profiler.validation.listing import number_of
from profiler.validation.metrics import metric
from profiler.validation.result import WRONG, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The scatter's band around what was measured.
BAND = 0.01
#: A series' marker, in matplotlib's and in the legend.
MARKERS = (("o", "●"), ("^", "▲"), ("s", "■"), ("D", "◆"))
_SCALE = {"bytes": (GIB, "GiB"), "seconds": (1.0, "s"), "count": (1, "")}


def scatter(figures: Sequence[Figure], groups: Sequence[str], ident: str) -> Drawing:
    """Predicted against measured on logarithmic axes, with the line where they are equal.

    Args:
        figures: of one kind, each with a prediction.
        groups: ids of all groups, whose place is their colour and marker.
        ident: prefix of the points' ids.
    """
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    divisor, unit = _SCALE[figures[0].kind]
    values = [float(one.measured) / divisor for one in figures]
    values += [float(one.predicted or 0) / divisor for one in figures]
    low, high = min(values) / 1.25, max(values) * 1.25
    notes: dict[str, Note] = {}
    with style():
        canvas = Canvas(figsize=(WIDTH_INCHES, WIDTH_INCHES))
        axes = canvas.subplots()
        canvas.subplots_adjust(left=0.15, right=0.97, bottom=0.13, top=0.98)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.fill(
            [low, high, high, low],
            [low * (1 - BAND), high * (1 - BAND), high * (1 + BAND), low * (1 + BAND)],
            color=palette.EDGE.light,
            alpha=0.35,
            linewidth=0,
        )
        axes.plot([low, high], [low, high], color=palette.EDGE.light, linewidth=0.7)
        for place, one in enumerate(figures):
            index = groups.index(one.group)
            role = palette.series_role(index)
            (point,) = axes.plot(
                [one.measured / divisor],
                [(one.predicted or 0) / divisor],
                MARKERS[index % len(MARKERS)][0],
                markersize=5,
                markerfacecolor="none" if one.verdict in WRONG else role.light,
                markeredgecolor=role.light,
                alpha=0.85,
                clip_on=False,
            )
            gid = f"{ident}-{place}"
            point.set_gid(gid)
            notes[gid] = _note(one)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel(f"measured, {unit}")
        axes.set_ylabel(f"simulated, {unit}")
    worst = max(figures, key=lambda one: abs(one.error or 0.0))
    return Drawing(
        canvas,
        notes,
        f"Scatter of {len(figures)} points on logarithmic axes: simulated against measured, with "
        f"the line where both are equal. Farthest from it: {worst.case}, "
        f"{metric(worst.metric).label}, {fine_percent(worst.error or 0.0)}.",
    )


def errors(figures: Sequence[Figure], index: int, ident: str, *, limit: float) -> Drawing:
    """The error of each case for one metric, around zero, over the band of its bound.

    Args:
        figures: of one group and metric, each with an error.
        index: the group's place among the groups.
        ident: prefix of the bars' ids.
        limit: error at either end of the axis.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    role = palette.series_role(index)
    notes: dict[str, Note] = {}
    with style():
        canvas, axes = panel(len(figures))
        bound = figures[0].bound
        if bound:
            axes.axvspan(-100 * bound, 100 * bound, color=palette.RULE.light, alpha=0.5, zorder=0)
        axes.axvline(0, color=palette.EDGE.light, linewidth=0.9)
        for row, one in enumerate(figures):
            bar = axes.barh(
                row,
                100 * (one.error or 0.0),
                BAR * 0.7,
                color="none" if one.verdict in WRONG else role.light,
                edgecolor=role.light,
                linewidth=1.0,
            )[0]
            bar.set_gid(f"{ident}-{row}")
            notes[f"{ident}-{row}"] = _note(one)
            _label(axes, row, one, f"{ident}-{row}-name", notes)
        axes.set_xlim(-100 * limit, 100 * limit)
        axes.set_ylim(len(figures) - 1 + 0.4, -0.68)
        axes.set_yticks([])
        axes.set_xlabel("simulated less measured")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], symmetric=True))
        axes.xaxis.set_major_formatter(PercentFormatter(symbol=" %", decimals=None))
        axes.grid(visible=False, axis="y")
        for side in axes.spines.values():
            side.set_visible(False)
    what = "; ".join(f"{one.case}: {fine_percent(one.error or 0.0)}" for one in figures)
    return Drawing(canvas, notes, f"Bars: error of {metric(figures[0].metric).label}. {what}.")


def _label(axes: Axes, row: int, one: Figure, gid: str, notes: dict[str, Note]) -> None:
    """A case's name at the left and its error at the right, above the bar."""
    height = row - BAR / 2 - 0.06
    name = axes.text(
        0.0,
        height,
        shorten(one.case, NAME_CHARACTERS),
        transform=axes.get_yaxis_transform(),
        ha="left",
        va="bottom",
    )
    name.set_gid(gid)
    notes[gid] = Note(one.case)
    beyond = one.verdict not in ("within", "no claim")
    axes.text(
        1.0,
        height,
        f"{'▲ ' if beyond else ''}{fine_percent(one.error or 0.0)}",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        color=(palette.BAD if one.verdict in WRONG else palette.TEXT).light,
    )


def _note(one: Figure) -> Note:
    label = metric(one.metric).label
    unit = " bytes" if one.kind == "bytes" else ""
    return Note(
        f"{one.case}: {label} {number_of(one.predicted, one.kind)}{unit} simulated, "
        f"{number_of(one.measured, one.kind)}{unit} measured, {fine_percent(one.error or 0.0)}",
        {
            "case": one.case,
            "metric": one.metric,
            "predicted": repr(one.predicted),
            "measured": repr(one.measured),
        },
    )
