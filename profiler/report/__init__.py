"""Records -> one self-contained HTML page. A pure function of what is stored; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import UsageError
from profiler.files import write_page
from profiler.record import Record

if TYPE_CHECKING:
    from profiler.report.scores import ScoreTable

__all__ = ["build", "render"]


def build(
    records: Sequence[Record],
    output: Path,
    *,
    title: str,
    command: str = "",
    older: Sequence[Record] = (),
    baseline: str = "",
    scores: ScoreTable | None = None,
    figures: Sequence[str] = (),
) -> Path:
    """Write `output/index.html` from records and return its path.

    The page loads nothing from anywhere. The same records give the same bytes, in any order. An
    earlier page is replaced in one step, never left half written.

    Args:
        records: at least one; of any models, methods, devices and sources.
        output: folder of the page, made if missing.
        title: heading of the page.
        command: what reproduces the records, shown under provenance.
        older: records that are not shown, as there are newer ones of the same cells; provenance
            counts them by their environment's fingerprint.
        baseline: the method that the others are compared with, as typed or a preset's name; by
            default the preset `lora`, if the records hold it.
        scores: of the methods (`profiler.report.scores.read`), instead of the published ones.
        figures: formats in which the static figures are written to `output/figures`, too.

    Raises:
        UsageError: there are no records, or none of the baseline's method.
        StoreError: the folder cannot be written.
    """
    content = _content(records, title, command, older, baseline, scores)
    path = write_page(_page(content), output)
    if figures:
        from profiler.report import saved_figures

        saved_figures.write(content, output / "figures", figures)
    return path


def render(
    records: Sequence[Record],
    *,
    title: str,
    command: str = "",
    older: Sequence[Record] = (),
    baseline: str = "",
    scores: ScoreTable | None = None,
) -> str:
    """The page's HTML. Args and `UsageError` as in `build`."""
    return _page(_content(records, title, command, older, baseline, scores))


def _content(
    records: Sequence[Record],
    title: str,
    command: str,
    older: Sequence[Record],
    baseline: str,
    scores: ScoreTable | None,
) -> dict[str, Any]:
    if not records:
        raise UsageError("a report needs at least one record; there is none")
    from profiler.report.cells import arrange
    from profiler.report.page import context

    return context(
        arrange(records),
        title=title,
        command=command,
        older=older,
        compare_with=baseline,
        given_scores=scores,
    )


def _page(content: dict[str, Any]) -> str:
    from profiler.report.templating import environment

    return environment("profiler.report").get_template("page.html").render(content)
