"""The page's content from cells: everything the templates print, as plain data."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.analysis.cost_model import BOUNDS
from profiler.record import Record
from profiler.report import (
    against,
    against_words,
    baseline,
    beside,
    downloads,
    figures,
    modules_chart,
    pair_figure,
    palette,
    published,
    roofline_chart,
    runs,
    scores,
    svg,
    tables,
    thinning,
    timeline,
    times,
    tradeoff,
    units,
)
from profiler.report.canvas import Drawing
from profiler.report.cells import Cell, categories_of, distinct, grouped
from profiler.report.pairs import Pair, pair
from profiler.report.summary import answers
from profiler.report.text import clean, listing
from profiler.report.units import gib_unit

if TYPE_CHECKING:
    from markupsafe import Markup

#: A cell with more than this many times the median would leave no room for the others.
OUTLIER = 5
#: Runs of many lengths that are drawn.
RUNS = 12
#: More names than this are counted, not listed.
NAMES = 12
#: What tells one environment from another, beside its fingerprint.
VERSIONS = ("profiler", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "commit")


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
    Section("runs", "Over the run", "Memory over the run", needs="run_tables"),
    Section("beside", "Measured", "Measured beside simulated", needs="pairs"),
    Section("methods", "Methods", "Method by method"),
    Section("against", "Against a baseline", "Against a baseline", needs="against"),
    Section("holders", "At the peak", "Who is alive at the peak"),
    Section("phases", "Phases", "Peak by phase", needs="phases"),
    Section("time", "Speed", "Speed", needs="times"),
    Section("tradeoff", "Trade-off", "Trade-off", needs="tradeoff"),
    Section("published", "Published", "Published against ours", needs="published"),
    Section("approximations", "Not modelled", "What was not modelled"),
    Section("problems", "Without result", "Cells that do not fit, or have no result", "problems"),
    Section("provenance", "Provenance", "Provenance"),
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: a device's cells. `ident` is its name among all of the page, `drawing` what the
    SVG was made from, where it can be saved."""

    heading: str
    detail: str
    svg: Markup
    ident: str = ""
    drawing: Drawing | None = None


@dataclass(frozen=True, slots=True)
class FigureGroup:
    """The panels of one model, with one legend and one axis. `sources` says what they show:
    one source, or both where each bar is labelled with its own."""

    caption: str
    sources: tuple[str, ...]
    legend: list[tuple[str, str]]
    panels: list[Panel]
    reserved: bool = False
    capacity: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listings:
    """A table for each cell of one model, device and source."""

    heading: str
    source: str
    entries: list[tuple[str, tables.Table]]


def context(
    cells: Sequence[Cell],
    *,
    title: str,
    command: str = "",
    older: Sequence[Record] = (),
    compare_with: str = "",
    given_scores: scores.ScoreTable | None = None,
) -> dict[str, Any]:
    """What the page's template is given.

    Args:
        older: records that the page leaves out, because it has newer ones of the same cells.
        compare_with: the method that others are compared with; see `profiler.report.build`.
        given_scores: instead of the published ones.
    """
    scored = scores.of_cells(cells, given_scores)
    points = tradeoff.points(cells, scored)
    pairs = pair(cells)
    tabled = thinning.thin(cells, thinning.TABLED, thinning.TABLED)
    shown = {cell.key for cell in tabled}
    comparisons = [
        dataclasses.replace(one, others=others)
        for one in baseline.against(cells, compare_with)
        if (others := [cell for cell in one.others if cell.key in shown])
    ]
    remarks, unsaid = against_words.remarks(comparisons)
    content = {
        "title": title,
        "kicker": "",
        "command": command,
        "style_light": palette.style_variables("light"),
        "style_dark": palette.style_variables("dark"),
        "facts": facts(cells),
        "sources": distinct(cell.source for cell in cells),
        "answers": answers(cells),
        "fits": tables.fit_matrix(cells),
        "breakdown": breakdown(cells),
        "beside_base": beside_base(cells),
        "breakdown_tables": tables.breakdown(tabled),
        "outside": outside_allocator(cells),
        "run_figures": run_figures(cells),
        "run_tables": runs.table(cells),
        "full_names": full_names(cells),
        "methods": tables.methods(cells),
        "against": against.tables(comparisons),
        "against_remarks": remarks,
        "against_unsaid": unsaid,
        "minus": units.MINUS,
        "pairs": pairs,
        "agreement": beside.summary(pairs, cells) if pairs else [],
        "pair_figures": pair_figures(pairs),
        "pair_tables": beside.overview(pairs),
        "pair_details": beside.details(pairs[: thinning.DETAILED]),
        "processes": beside.processes(cells),
        "holders": holders(cells),
        "holding": sum(bool(cell.memory.largest_at_peak) for cell in cells),
        "times": durations(cells),
        "bounds": bounds(cells),
        "work": work(cells),
        "time_tables": times.steps(tabled),
        "untabled": len(cells) - len(tabled),
        "time_kinds": distinct(times.time_of(cell).source for cell in cells if cell.record.time),
        "ops": ops(cells),
        "timed": sum(bool(cell.record.time and cell.record.time.kernels) for cell in cells),
        "timeline_chart": timeline.chart(cells),
        "modules_chart": modules_chart.chart(cells),
        "roofline_chart": roofline_chart.chart(cells),
        "tradeoff": tradeoff.pareto(points),
        "tradeoff_sentence": tradeoff.sentence(points),
        "pscp_chart": tradeoff.ranking(points, scored),
        "pscp_tables": tradeoff.tables(points),
        "phases": phases(cells),
        "phase_tables": tables.phases(tabled),
        "published": published.compare(cells, published.load()),
        "approximations": approximations(cells),
        "problems": tables.problems(cells),
        "environment": environment(cells),
        "seeds": distinct(str(cell.record.spec.get("seed", "?")) for cell in cells),
        "downloads": downloads.all_of(cells),
        "older": older_environments(older),
        "cells": cells,
        "has_reserved": any(cell.memory.peak_reserved is not None for cell in cells),
        "has_unreserved": any(
            cell.drawable and cell.memory.peak_reserved is None for cell in cells
        ),
        "has_predicted": any(
            cell.record.time is not None and cell.record.time.source == "predicted"
            for cell in cells
        ),
        "swatch": lambda category: palette.category_role(category).css,
    }
    named = ("timeline_chart", "modules_chart", "roofline_chart", "tradeoff", "pscp_chart")
    content["charts"] = [content[name] for name in named if content[name]]
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
    missing = grouped([cell for cell in cells if not cell.drawable], _model)
    for index, drawn, remarks in _drawn([cell for cell in cells if cell.drawable]):
        limit = figures.extent(drawn)
        result.append(
            FigureGroup(
                caption=f"{drawn[0].model}: memory at the peak by category",
                sources=(drawn[0].source,),
                legend=_categories(categories_of(drawn)),
                panels=[
                    _panel(figures.breakdown(panel, limit=limit), f"memory-{index}-{number}", panel)
                    for number, panel in enumerate(_by_device(drawn))
                ],
                reserved=any(cell.memory.peak_reserved is not None for cell in drawn),
                capacity=any(cell.record.fits for cell in drawn),
                remarks=(*remarks, *_not_drawn(missing.get(_model(drawn[0]), []))),
            )
        )
    return result


def beside_base(cells: Sequence[Cell]) -> list[FigureGroup]:
    """The stacked bars again without the base parameters, which hide everything else."""
    usual: list[Cell] = []
    left_out: dict[tuple[str, str], list[str]] = {}
    for group in _by_model([cell for cell in cells if cell.drawable]):
        middle = statistics.median_low([figures.rest(cell) for cell in group])
        drawn = [cell for cell in group if figures.rest(cell) <= OUTLIER * middle]
        if not middle or not any(cell.memory.at_peak.get(figures.BASE) for cell in drawn):
            continue
        usual += drawn
        left_out[_model(group[0])] = [
            f"{same[0].short} ({gib_unit(max(figures.rest(cell) for cell in same))})"
            for same in grouped(
                [cell for cell in group if figures.rest(cell) > OUTLIER * middle],
                lambda cell: cell.name,
            ).values()
        ]
    result = []
    for index, drawn, remarks in _drawn(usual):
        limit = max(figures.rest(cell) for cell in drawn)
        outliers = left_out[_model(drawn[0])]
        if outliers:
            remarks = (*remarks, f"Left out for their size: {_listing(outliers)}.")
        result.append(
            FigureGroup(
                caption=f"{drawn[0].model}: what is held at the peak beside the base parameters",
                sources=(drawn[0].source,),
                legend=_categories([name for name in categories_of(drawn) if name != figures.BASE]),
                panels=[
                    _panel(figures.beside_base(panel, limit=limit), f"rest-{index}-{number}", panel)
                    for number, panel in enumerate(_by_device(drawn))
                ],
                remarks=remarks,
            )
        )
    return result


def phases(cells: Sequence[Cell]) -> list[FigureGroup]:
    """The bars by phase, one group per model and source, one panel per device."""
    result = []
    for index, drawn, remarks in _drawn([cell for cell in cells if cell.memory.phases]):
        limit = figures.extent(drawn, capacity=False)
        order = figures.phases_of(drawn)
        result.append(
            FigureGroup(
                caption=f"{drawn[0].model}: peak allocated in each phase of the step",
                sources=(drawn[0].source,),
                legend=_phases(order),
                panels=[
                    _panel(
                        figures.phases(panel, limit=limit, order=order),
                        f"phases-{index}-{number}",
                        panel,
                    )
                    for number, panel in enumerate(_by_device(drawn))
                ],
                remarks=remarks,
            )
        )
    return result


def durations(cells: Sequence[Cell]) -> list[FigureGroup]:
    """The step's time by phase, one group per model and kind of time, one panel per device."""
    timed = [cell for cell in cells if cell.record.time]
    return _bars(
        timed, "time", "time of one optimizer step by phase", figures.durations,
        figures.longest, figures.timed_phases_of,
    )  # fmt: skip


def bounds(cells: Sequence[Cell]) -> list[FigureGroup]:
    """As `durations`, of predicted steps, by what bounds each moment."""
    bound = [cell for cell in cells if cell.record.time and cell.record.time.bound]
    return _bars(
        bound, "bound", "what bounds the step", figures.bounds, figures.longest,
        lambda _: list(BOUNDS),
    )  # fmt: skip


def work(cells: Sequence[Cell]) -> list[FigureGroup]:
    """The step's FLOPs by phase, one group per model and source, one panel per device."""
    counted = [cell for cell in cells if cell.record.flops and cell.record.flops.total]

    def most(drawn: Sequence[Cell]) -> float:
        return max(cell.record.flops.total for cell in drawn if cell.record.flops)

    return _bars(
        counted, "flops", "FLOPs of one optimizer step by phase", figures.work, most,
        figures.counted_phases_of,
    )  # fmt: skip


def _bars(
    cells: Sequence[Cell],
    ident: str,
    caption: str,
    draw: Callable[..., Drawing],
    extent: Callable[[Sequence[Cell]], float],
    parts: Callable[[Sequence[Cell]], list[str]],
) -> list[FigureGroup]:
    """Stacked bars, one group per model and kind of figure, one panel per device, on one axis."""
    result = []
    by_time = ident != "flops"
    for index, drawn, remarks in _drawn(cells, times.kind if by_time else _model):
        limit, order = extent(drawn), parts(drawn)
        result.append(
            FigureGroup(
                caption=f"{drawn[0].model}: {caption}",
                sources=(times.time_of(drawn[0]).source if by_time else drawn[0].source,),
                legend=_phases(order),
                panels=[
                    _panel(
                        draw(panel, limit=limit, order=order), f"{ident}-{index}-{number}", panel
                    )
                    for number, panel in enumerate(_by_device(drawn))
                ],
                remarks=remarks,
            )
        )
    return result


def run_figures(cells: Sequence[Cell]) -> list[FigureGroup]:
    """Memory over the steps of each run of many lengths, one group per model and source."""
    found = [cell for cell in cells if cell.memory.history is not None]
    shown = found[:RUNS]
    unsaid = (f"{RUNS} of {len(found)} runs are drawn; all are in the table.",)
    return [
        FigureGroup(
            caption=f"{drawn[0].model}: memory over the steps",
            sources=(drawn[0].source,),
            legend=runs.legend(drawn),
            panels=[
                _panel(
                    runs.over_steps(cell),
                    f"runs-{index}-{number}",
                    [cell],
                    f"{cell.short} on {cell.device}",
                )
                for number, cell in enumerate(drawn)
            ],
            remarks=unsaid if len(shown) < len(found) else (),
        )
        for index, drawn in enumerate(_by_model(shown))
    ]


def pair_figures(pairs: Sequence[Pair]) -> list[FigureGroup]:
    """Measured peaks beside simulated ones, one group per model, one panel per machine."""
    of_cell = {found.measured.key: found for found in pairs if found.peak.nbytes is not None}
    cells = [of_cell[key].measured for key in of_cell]
    result = []
    for index, drawn, remarks in _drawn(cells):
        group = [of_cell[cell.key] for cell in drawn]
        limit = pair_figure.extent(group)
        result.append(
            FigureGroup(
                caption=f"{drawn[0].model}: peak allocated",
                sources=("measured", "simulated"),
                legend=[],
                panels=[
                    _panel(
                        pair_figure.peaks(panel, limit=limit),
                        f"pairs-{index}-{number}",
                        [found.measured for found in panel],
                        beside.machine(*devices),
                    )
                    for number, (devices, panel) in enumerate(beside.by_machine(group).items())
                ],
                remarks=remarks,
            )
        )
    return result


def holders(cells: Sequence[Cell]) -> list[Listings]:
    """Who is alive at the peak, per model, device and source."""
    return _listings([cell for cell in cells if cell.memory.largest_at_peak], tables.holders)


def ops(cells: Sequence[Cell]) -> list[Listings]:
    """The ops that take longest, per model, device and source."""
    timed = [cell for cell in cells if cell.record.time and cell.record.time.kernels]
    return _listings(timed, times.ops)


def _listings(cells: Sequence[Cell], table: Callable[[Cell], tables.Table]) -> list[Listings]:
    shown = thinning.thin(cells, thinning.DETAILED, thinning.DETAILED)
    groups = grouped(shown, lambda cell: (cell.model, cell.device, cell.source))
    result = []
    for (model, device, _), group in groups.items():
        entries = [(cell.short, table(cell)) for cell in group]
        result.append(Listings(f"{model} on {device}", entries[0][1].source, entries))
    return result


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


def older_environments(records: Sequence[Record]) -> list[tuple[str, str, int]]:
    """Fingerprint, versions and number of the records that the page leaves out."""
    counts = Counter(str(record.environment.get("fingerprint", "?")) for record in records)
    versions: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.id):
        found = record.environment
        text = ", ".join(f"{name} {found[name]}" for name in VERSIONS if found.get(name))
        versions.setdefault(str(found.get("fingerprint", "?")), text)
    return [(name, versions[name], number) for name, number in sorted(counts.items())]


def _model(cell: Cell) -> tuple[str, str]:
    return cell.model, cell.source


def _drawn(
    cells: Sequence[Cell], key: Callable[[Cell], tuple[str, str]] = _model
) -> Iterator[tuple[int, list[Cell], tuple[str, ...]]]:
    """The cells that a kind of figure draws, by `key`: a number, the cells, and what to say of
    those that are left out."""
    models = list(grouped(cells, key).values())
    shown = {cell.key for cell in thinning.thin(cells, thinning.DRAWN)}
    drawn = [[cell for cell in group if cell.key in shown] for group in models]
    absent = distinct(group[0].model for group, kept in zip(models, drawn, strict=True) if not kept)
    last = max((index for index, kept in enumerate(drawn) if kept), default=0)
    for index, (group, kept) in enumerate(zip(models, drawn, strict=True)):
        if not kept:
            continue
        remarks = []
        if len(kept) < len(group):
            remarks.append(
                f"{len(kept)} of {len(group)} cells are drawn, the largest of each method first; "
                "all are in the tables."
            )
        if index == last and absent:
            remarks.append(f"Only in the tables: {_listing(absent)}.")
        yield index, kept, tuple(remarks)


def _not_drawn(cells: Sequence[Cell]) -> tuple[str, ...]:
    names = [f"{cell.short} on {cell.device} ({cell.record.status})" for cell in cells]
    return (f"Not drawn, for want of a result: {_listing(names)}.",) if names else ()


def _listing(names: list[str]) -> str:
    more = [f"{len(names) - NAMES} more"] if len(names) > NAMES else []
    return listing([*names[:NAMES], *more])


def _categories(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(palette.category_label(name), palette.category_role(name).css) for name in names]


def _phases(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(clean(name), palette.phase_role(number).css) for number, name in enumerate(names)]


def _panel(drawing: Drawing, ident: str, cells: Sequence[Cell], heading: str = "") -> Panel:
    from markupsafe import Markup

    # The SVG comes from the XML writer, which has escaped every name in it.
    fits = cells[0].record.fits
    workloads = distinct(cell.workload for cell in cells)
    details = [f"{gib_unit(fits.capacity)}"] if fits else []
    details += workloads if len(workloads) == 1 else []
    return Panel(
        heading or cells[0].device,
        ", ".join(details),
        Markup(svg.inline(drawing, ident)),
        ident,
        drawing,
    )


def _by_model(cells: Sequence[Cell]) -> list[list[Cell]]:
    return list(grouped(cells, _model).values())


def _by_device(cells: Sequence[Cell]) -> list[list[Cell]]:
    return list(grouped(cells, lambda cell: cell.device).values())


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
