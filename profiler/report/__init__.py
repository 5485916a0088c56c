"""Records -> one self-contained HTML page. A pure function of what is stored; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from profiler.errors import UsageError
from profiler.files import write_page
from profiler.record import Record

__all__ = ["build", "render"]


def build(
    records: Sequence[Record],
    output: Path,
    *,
    title: str,
    command: str = "",
    older: Sequence[Record] = (),
    baseline: str = "",
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

    Raises:
        UsageError: there are no records, or none of the baseline's method.
        StoreError: the folder cannot be written.
    """
    html = render(records, title=title, command=command, older=older, baseline=baseline)
    return write_page(html, output)


def render(
    records: Sequence[Record],
    *,
    title: str,
    command: str = "",
    older: Sequence[Record] = (),
    baseline: str = "",
) -> str:
    """The page's HTML. Args and `UsageError` as in `build`."""
    if not records:
        raise UsageError("a report needs at least one record; there is none")
    from profiler.report.cells import arrange
    from profiler.report.page import context
    from profiler.report.templating import environment

    page = environment("profiler.report").get_template("page.html")
    content = context(
        arrange(records), title=title, command=command, older=older, compare_with=baseline
    )
    return page.render(content)
