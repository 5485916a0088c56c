"""What a reader takes along: the records, and the page's tables for a paper or an issue."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiler.errors import UsageError
from profiler.record import Record
from profiler.report.cells import Cell

#: Above so many bytes of page the records are linked, not embedded, and tables are left out.
EMBED_LIMIT = 2_000_000
#: So many records are never below it: a record is some 15 kB, packed.
EMBEDDED = 200
#: More records than so many make tables above it, or none that a person reads.
TABULATED = 2_000
#: Above so many bytes a text is packed.
PACK_LIMIT = 100_000

#: The tables of a page that its downloads hold.
_TABLES = ("cells", "breakdown", "phases", "fits")


@dataclass(frozen=True, slots=True)
class Download:
    """Something to take along: embedded in the page, or in the folder beside it."""

    href: str
    name: str
    embedded: bool
    text: str


def all_of(cells: Sequence[Cell]) -> list[Download]:
    """The records as JSON and CSV, the tables as Markdown and LaTeX."""
    records = [cell.record for cell in cells]
    found = [_records(records)]
    if len(records) > TABULATED:
        return found
    for name, text, make in (
        ("records.csv", "One row a record (CSV)", _csv),
        ("tables.md", "The tables as Markdown", _markdown),
        ("tables.tex", "The tables as LaTeX (booktabs)", _latex),
    ):
        content = make(records)
        one = _embedded(name, text, content.encode("utf-8", "backslashreplace"))
        if content and len(one.href) <= EMBED_LIMIT:
            found.append(one)
    return found


def _records(records: Sequence[Record]) -> Download:
    many = f"{len(records)} record{'s' if len(records) != 1 else ''}"
    if len(records) <= EMBEDDED:
        data = json.dumps([record.to_dict() for record in records], ensure_ascii=True)
        # A fixed time stamp: the same records give the same page.
        encoded = base64.b64encode(gzip.compress(data.encode("ascii"), mtime=0)).decode("ascii")
        if len(encoded) <= EMBED_LIMIT:
            uri = f"data:application/gzip;base64,{encoded}"
            return Download(uri, "records.json.gz", True, f"The {many} of this page (JSON, gzip)")
    return Download("records/", "records", False, f"The {many} of this page")


def _embedded(name: str, text: str, data: bytes) -> Download:
    kind = "text/plain"
    if len(data) > PACK_LIMIT:
        data, name, kind = gzip.compress(data, mtime=0), f"{name}.gz", "application/gzip"
        text = f"{text}, gzip"
    uri = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Download(uri, name, True, text)


def _csv(records: Sequence[Record]) -> str:
    from profiler.export import csv

    return csv.render(records)


def _markdown(records: Sequence[Record]) -> str:
    from profiler.export import markdown

    return _each(lambda table: markdown.render(records, table))


def _latex(records: Sequence[Record]) -> str:
    from profiler.export import latex

    return _each(lambda table: latex.render(records, table))


def _each(render: Callable[[str], str]) -> str:
    """All tables that have something to show, one after the other."""
    parts = []
    for table in _TABLES:
        try:
            parts.append(render(table))
        except UsageError:  # no record has it
            continue
    return "\n".join(parts)
