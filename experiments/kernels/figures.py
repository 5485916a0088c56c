"""The figure: how full an SM is with each build, one panel for each GPU architecture."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.report import palette
from profiler.report.canvas import BAR, NAME_CHARACTERS, Drawing, Note, finish, panel, style
from profiler.report.text import shorten

from .occupancy import CAPABILITIES
from .results import Build


def occupancy(builds: Sequence[Build], ident: str, *, limit: float) -> Drawing:
    """Bars of the theoretical occupancy, with what limits it.

    Args:
        builds: of one architecture, at least one.
        ident: prefix of the bars' ids, unique in the page.
        limit: share at the axis' end.
    """
    from matplotlib.ticker import PercentFormatter

    notes: dict[str, Note] = {}
    with style():
        figure, axes = panel(len(builds))
        for row, one in enumerate(builds):
            role = palette.series_role(0)
            bar = axes.barh(
                row,
                one.occupancy,
                BAR * 0.7,
                color=role.light,
                edgecolor=palette.EDGE.light,
                linewidth=0.8,
            )[0]
            gid = f"{ident}-{row}"
            bar.set_gid(gid)
            notes[gid] = Note(f"{name(one)}: {words(one)}")
            for x, side, text in (
                (0.0, "left", shorten(name(one), NAME_CHARACTERS)),
                (1.0, "right", percent(one.occupancy)),
            ):
                axes.text(
                    x,
                    row - BAR / 2 - 0.06,
                    text,
                    transform=axes.get_yaxis_transform(),
                    ha=side,
                    va="bottom",
                )
        finish(axes, len(builds), limit, "of the SM's warps")
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %", decimals=0))
    card = CAPABILITIES[builds[0].capability]
    said = "; ".join(f"{name(one)}: {words(one)}" for one in builds)
    return Drawing(figure, notes, f"Bars: theoretical occupancy on {card.name}. {said}.")


def name(build: Build) -> str:
    """A build among those of its kernel and dtype."""
    return f"{build.tile}, {build.variant}"


def percent(share: float) -> str:
    """A share with three significant digits."""
    return f"{100 * share:.3g} %"


def words(build: Build) -> str:
    """What fits, and what lets no more fit."""
    blocks = f"{build.blocks} block{'s' if build.blocks != 1 else ''}"
    return f"{percent(build.occupancy)}, {blocks} of {build.warps} warps, limited by {build.limit}"
