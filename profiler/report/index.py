"""The page over all pages of a folder: what each is of, where its figures come from, and a link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import UsageError
from profiler.files import write_page
from profiler.report import about, palette
from profiler.report.text import listing

TITLE = "Reports"
#: Names of a fact's values that are listed.
NAMES = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One page: its folder's name, its title and kind, its sources, some facts, and its answer."""

    folder: str
    title: str
    kind: str
    sources: list[str]
    facts: list[str]
    sentences: list[str]


def build(folder: Path) -> Path:
    """Write `folder/index.html` over the pages of its folders, and return its path.

    Raises:
        UsageError: none of the folders holds a page's data.
        StoreError: what a folder holds cannot be read, or the page not be written.
    """
    found = entries(folder)
    if not found:
        raise UsageError(f"no folder of {folder} holds records; run a sweep into one")
    return write_page(render(found), folder)


def entries(folder: Path) -> list[Entry]:
    """The pages in the folders of a folder, by title."""
    found = []
    for one in sorted(path for path in folder.iterdir() if (path / "index.html").is_file()):
        entry = _validation(one) or _advice(one) or _kernels(one) or _study(one)
        if entry is not None:
            found.append(entry)
    return sorted(found, key=lambda entry: (entry.kind, entry.title.lower()))


def render(found: Sequence[Entry]) -> str:
    """The page's HTML. The same entries give the same bytes."""
    from profiler.report.page import Section
    from profiler.report.templating import environment

    content: dict[str, Any] = {
        "title": TITLE,
        "style_light": palette.style_variables("light"),
        "style_dark": palette.style_variables("dark"),
        "swatch": lambda category: palette.category_role(category).css,
        "sections": [Section("pages", "Pages", "All pages")],
        "facts": [("pages", [str(len(found))])],
        "sources": sorted({source for entry in found for source in entry.sources}),
        "entries": found,
        "cells": [],
        "kicker": "Where the bytes, FLOPs and seconds of fine-tuning go",
    }
    return environment("profiler.report").get_template("page.html").render(content)


def _study(folder: Path) -> Entry | None:
    from profiler.report.cells import arrange, distinct
    from profiler.report.newest import split
    from profiler.report.summary import answers
    from profiler.store import Store

    if not (folder / "records").is_dir():
        return None
    store = Store(folder)
    problems: list[str] = []
    records, _ = split(store.all(problems), store)
    if not records:
        return None
    cells = arrange(records)
    facts = [f"{len(cells)} cells"]
    for name, values in (
        ("models", distinct(cell.model for cell in cells)),
        ("methods", distinct(cell.method for cell in cells)),
        ("devices", distinct(cell.device for cell in cells)),
    ):
        facts.append(listing(values) if len(values) <= NAMES else f"{len(values)} {name}")
    sentences = [answer.sentences[0] for answer in answers(cells)]
    title = about.read(folder).title or folder.name
    sources = distinct(cell.source for cell in cells)
    return Entry(folder.name, title, "study", sources, facts, sentences)


def _validation(folder: Path) -> Entry | None:
    from profiler.validation import page
    from profiler.validation.result import Validation
    from profiler.validation.summary import summarise

    file = folder / "validation.json"
    if not file.is_file():
        return None
    found: Validation = Validation.from_json(file.read_bytes())
    facts = [f"{len(found.figures)} numbers", listing([group.card for group in found.groups])]
    sentences = page.sentences(found, summarise(found.figures))
    return Entry(folder.name, page.TITLE, "validation", ["simulated"], facts, sentences[:2])


def _kernels(folder: Path) -> Entry | None:
    if not (folder / "kernels.json").is_file():
        return None
    return Entry(
        folder.name,
        "Two Triton kernels of adapter training",
        "kernels",
        [],
        ["compiled for three architectures", "checked in Triton's interpreter"],
        [],
    )


def _advice(folder: Path) -> Entry | None:
    from profiler.advisor import results

    file = folder / results.NAME
    if not file.is_file():
        return None
    found = results.read(file)
    facts = [f"{len(found.answers)} answers", found.model, f"{len(found.devices)} cards"]
    return Entry(folder.name, found.title, "advice", ["simulated"], facts, found.sentences()[:2])
