"""The page's content from cells: everything the templates print, as plain data."""

from __future__ import annotations

import base64
import gzip
import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.report import figures, palette, published, svg, tables
from profiler.report.cells import Cell, categories_of, distinct, grouped
from profiler.report.summary import answers
from profiler.report.text import clean, listing
from profiler.report.units import gib_unit

if TYPE_CHECKING:
    from markupsafe import Markup

#: Above this many bytes of page the records are linked, not embedded.
EMBED_LIMIT = 2_000_000
#: A cell with more than this many times the median would leave no room for the others.
OUTLIER = 5


@dataclass(frozen=True, slots=True)
class Section:
    """A section: `id` names its template in `templates/sections/`, `short` stands in the menu."""

    id: str
    short: str
    heading: str
    needs: str = ""


#: The page, in order. A section whose `needs` is empty in the context is left out.
SECTIONS = (
    Section("summary", "Answer", "The answer"),
    Section("memory", "Memory", "What fills the memory"),
    Section("methods", "Methods", "Method by method"),
    Section("holders", "At the peak", "Who is alive at the peak"),
    Section("phases", "Phases", "Peak by phase", needs="phases"),
    Section("published", "Published", "Published against ours", needs="published"),
    Section("approximations", "Not modelled", "What was not modelled"),
    Section("problems", "Without result", "Cells that do not fit, or have no result", "problems"),
    Section("provenance", "Provenance", "Provenance"),
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: a device's cells."""

    heading: str
    detail: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class FigureGroup:
    """The panels of one model and source, with one legend and one axis."""

    caption: str
    source: str
    legend: list[tuple[str, str]]
    panels: list[Panel]
    reserved: bool = False
    capacity: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holders:
    """The largest blocks at the peaks of one model's cells."""

    heading: str
    source: str
    entries: list[tuple[str, tables.Table]]


@dataclass(frozen=True, slots=True)
class Download:
    """Where the records are: embedded in the page, or in the folder beside it."""

    href: str
    name: str
    embedded: bool
    count: int


def context(cells: Sequence[Cell], *, title: str, command: str = "") -> dict[str, Any]:
    """What the page's template is given."""
    content = {
        "title": title,
        "command": command,
        "style_light": palette.style_variables("light"),
        "style_dark": palette.style_variables("dark"),
        "facts": facts(cells),
        "sources": distinct(cell.source for cell in cells),
        "answers": answers(cells),
        "fits": tables.fit_matrix(cells),
        "breakdown": breakdown(cells),
        "beside_base": beside_base(cells),
        "breakdown_tables": tables.breakdown(cells),
        "outside": outside_allocator(cells),
        "full_names": full_names(cells),
        "methods": tables.methods(cells),
        "holders": holders(cells),
        "phases": phases(cells),
        "phase_tables": tables.phases(cells),
        "published": published.compare(cells, published.load()),
        "approximations": approximations(cells),
        "problems": tables.problems(cells),
        "environment": environment(cells),
        "seeds": distinct(str(cell.record.spec.get("seed", "?")) for cell in cells),
        "download": download(cells),
        "cells": cells,
        "has_reserved": any(cell.memory.peak_reserved is not None for cell in cells),
        "has_predicted": any(
            cell.record.time is not None and cell.record.time.source == "predicted"
            for cell in cells
        ),
        "swatch": lambda category: palette.category_role(category).css,
    }
    content["sections"] = [item for item in SECTIONS if not item.needs or content[item.needs]]
    return content


def facts(cells: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    """What was run, by kind."""
    columns: list[tuple[str, Callable[[Cell], str]]] = [
        ("model", lambda cell: cell.model),
        ("method", lambda cell: cell.method),
        ("device", lambda cell: cell.device),
        ("batch × length", lambda cell: cell.workload.removeprefix("batch ")),
        ("stack", lambda cell: clean(str(cell.record.spec.get("stack", "?")))),
    ]
    result = []
    for name, value in columns:
        values = distinct(value(cell) for cell in cells)
        plural = "es" if name.startswith("batch") else "s"
        head, _, rest = name.partition(" ")
        label = name if len(values) == 1 else f"{head}{plural} {rest}".strip()
        result.append((label, values))
    return result


def breakdown(cells: Sequence[Cell]) -> list[FigureGroup]:
    """The stacked bars, one group per model and source, one panel per device."""
    result = []
    for index, group in enumerate(_by_model(cells)):
        drawn = [cell for cell in group if cell.drawable]
        if not drawn:
            continue
        limit = figures.extent(drawn)
        result.append(
            FigureGroup(
                caption=f"{group[0].model}: memory at the peak by category",
                source=group[0].source,
                legend=[
                    (palette.category_label(name), palette.category_role(name).css)
                    for name in categories_of(drawn)
                ],
                panels=[
                    _panel(figures.breakdown(panel, limit=limit), f"memory-{index}-{number}", panel)
                    for number, panel in enumerate(_by_device(drawn))
                ],
                reserved=any(cell.memory.peak_reserved is not None for cell in drawn),
                capacity=any(cell.record.fits for cell in drawn),
                remarks=_not_drawn(group),
            )
        )
    return result


def beside_base(cells: Sequence[Cell]) -> list[FigureGroup]:
    """The stacked bars again without the base parameters, which hide everything else."""
    result = []
    for index, group in enumerate(_by_model([cell for cell in cells if cell.drawable])):
        usual = statistics.median_low([figures.rest(cell) for cell in group])
        drawn = [cell for cell in group if figures.rest(cell) <= OUTLIER * usual]
        if not usual or not any(cell.memory.at_peak.get(figures.BASE) for cell in drawn):
            continue
        limit = max(figures.rest(cell) for cell in drawn)
        outliers = [
            f"{same[0].short} ({gib_unit(max(figures.rest(cell) for cell in same))})"
            for same in grouped(
                [cell for cell in group if figures.rest(cell) > OUTLIER * usual],
                lambda cell: cell.name,
            ).values()
        ]
        result.append(
            FigureGroup(
                caption=f"{group[0].model}: what is held at the peak beside the base parameters",
                source=group[0].source,
                legend=[
                    (palette.category_label(name), palette.category_role(name).css)
                    for name in categories_of(drawn)
                    if name != figures.BASE
                ],
                panels=[
                    _panel(figures.beside_base(panel, limit=limit), f"rest-{index}-{number}", panel)
                    for number, panel in enumerate(_by_device(drawn))
                ],
                remarks=(f"Left out for their size: {listing(outliers)}.",) if outliers else (),
            )
        )
    return result


def phases(cells: Sequence[Cell]) -> list[FigureGroup]:
    """The bars by phase, one group per model and source, one panel per device."""
    result = []
    for index, group in enumerate(_by_model([cell for cell in cells if cell.memory.phases])):
        limit = figures.extent(group, capacity=False)
        order = figures.phases_of(group)
        result.append(
            FigureGroup(
                caption=f"{group[0].model}: peak allocated in each phase of the step",
                source=group[0].source,
                legend=[
                    (clean(name), palette.phase_role(number).css)
                    for number, name in enumerate(order)
                ],
                panels=[
                    _panel(
                        figures.phases(panel, limit=limit, order=order),
                        f"phases-{index}-{number}",
                        panel,
                    )
                    for number, panel in enumerate(_by_device(group))
                ],
            )
        )
    return result


def holders(cells: Sequence[Cell]) -> list[Holders]:
    """Who is alive at the peak, per model, device and source."""
    holding = [cell for cell in cells if cell.memory.largest_at_peak]
    groups = grouped(holding, lambda cell: (cell.model, cell.device, cell.source))
    return [
        Holders(
            heading=f"{model} on {device}",
            source=source,
            entries=[(cell.short, tables.holders(cell)) for cell in group],
        )
        for (model, device, source), group in groups.items()
    ]


def outside_allocator(cells: Sequence[Cell]) -> set[str]:
    """The names of what the device holds beside the allocator's memory, where it is not zero."""
    return {
        name for cell in cells for name, nbytes in cell.memory.outside_allocator.items() if nbytes
    }


def full_names(cells: Sequence[Cell]) -> dict[str, str]:
    """Whole names by short name, where they differ."""
    return {cell.short: cell.name for cell in cells if cell.short != cell.name}


def approximations(cells: Sequence[Cell]) -> list[tuple[str, int]]:
    """Each sentence on what was not modelled, with the number of cells it concerns."""
    counts = Counter(
        sentence for cell in cells for sentence in distinct(cell.record.approximations)
    )
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def environment(cells: Sequence[Cell]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Each key of the environments with its values, and in how many cells each stands."""
    names = distinct(name for cell in cells for name in cell.record.environment)
    result = []
    for name in names:
        values = Counter(
            _plain(cell.record.environment[name])
            for cell in cells
            if cell.record.environment.get(name) is not None
        )
        if values:
            result.append((name, sorted(values.items(), key=lambda item: (-item[1], item[0]))))
    return result


def download(cells: Sequence[Cell]) -> Download:
    """The records as gzipped JSON in a data URI, or a link to their folder if that is large."""
    data = json.dumps([cell.record.to_dict() for cell in cells], ensure_ascii=True)
    # A fixed time stamp: the same records give the same page.
    encoded = base64.b64encode(gzip.compress(data.encode("ascii"), mtime=0)).decode("ascii")
    if len(encoded) <= EMBED_LIMIT:
        uri = f"data:application/gzip;base64,{encoded}"
        return Download(uri, "records.json.gz", True, len(cells))
    return Download("records/", "records", False, len(cells))


def _not_drawn(cells: Sequence[Cell]) -> tuple[str, ...]:
    names = [
        f"{cell.short} on {cell.device} ({cell.record.status})"
        for cell in cells
        if not cell.drawable
    ]
    return (f"Not drawn, for want of a result: {listing(names)}.",) if names else ()


def _panel(drawing: figures.Drawing, ident: str, cells: Sequence[Cell]) -> Panel:
    from markupsafe import Markup

    # The SVG comes from the XML writer, which has escaped every name in it.
    fits = cells[0].record.fits
    workloads = distinct(cell.workload for cell in cells)
    details = [f"{gib_unit(fits.capacity)}"] if fits else []
    details += workloads if len(workloads) == 1 else []
    return Panel(cells[0].device, ", ".join(details), Markup(svg.inline(drawing, ident)))


def _by_model(cells: Sequence[Cell]) -> list[list[Cell]]:
    return list(grouped(cells, lambda cell: (cell.model, cell.source)).values())


def _by_device(cells: Sequence[Cell]) -> list[list[Cell]]:
    return list(grouped(cells, lambda cell: cell.device).values())


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
