"""The page's static figures as files, for a paper or slides, each with its legend."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import StoreError
from profiler.files import replace_file
from profiler.report import palette
from profiler.report.canvas import FONT_POINTS, style

if TYPE_CHECKING:
    from profiler.report.page import FigureGroup, Panel

FORMATS = ("svg", "png", "pdf")
_DPI = 200


def write(content: dict[str, Any], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write each figure of a page's content into `folder` in each format; their paths.

    Raises:
        StoreError: one cannot be written.
    """
    from profiler.report.page import FigureGroup

    found = [
        (group, panel)
        for value in content.values()
        if isinstance(value, list)
        for group in value
        if isinstance(group, FigureGroup)
        for panel in group.panels
        if panel.drawing is not None
    ]
    paths = []
    for group, panel in found:
        for form in formats:
            path = folder / f"{panel.ident}.{form}"
            try:
                replace_file(path, _drawn(group, panel, form))
            except OSError as error:
                raise StoreError(f"cannot write {path}: {error.strerror or error}") from None
            paths.append(path)
    return paths


def _drawn(group: FigureGroup, panel: Panel, form: str) -> bytes:
    from matplotlib.patches import Patch

    assert panel.drawing is not None
    figure = panel.drawing.figure
    with style():
        if group.legend and not figure.legends:
            handles = [
                Patch(facecolor=palette.light_of(css), edgecolor=palette.EDGE.light, label=label)
                for label, css in group.legend
            ]
            figure.legend(
                handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=2,
                frameon=False, fontsize=FONT_POINTS,
            )  # fmt: skip
            sources = " and ".join(group.sources)
            figure.suptitle(
                f"{group.caption} ({sources})\n{panel.heading}",
                fontsize=FONT_POINTS, y=1.0, va="bottom",
            )  # fmt: skip
        buffer = BytesIO()
        # No time stamp: the same records give the same file.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
        figure.savefig(buffer, format=form, dpi=_DPI, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()
