"""The page of a validation: a pure function of `validation.json`."""

from __future__ import annotations

import base64
import gzip
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from profiler.files import write_page
from profiler.report import palette, svg, units
from profiler.report.canvas import Drawing
from profiler.report.cells import distinct
from profiler.report.page import FigureGroup, Panel, Section
from profiler.report.tables import Column, Field, Rows, Table
from profiler.report.text import listing
from profiler.validation import figures
from profiler.validation.listing import bound_of, number_of, summary_fields
from profiler.validation.metrics import metric
from profiler.validation.result import WRONG, Figure, GroupInfo, Validation
from profiler.validation.summary import RANKED, Summary, summarise

TITLE = "Simulated against measured"

SECTIONS = (
    Section("answer", "Answer", "The answer"),
    Section("scatter", "Scatter", "Simulated against measured", needs="scatter"),
    Section("errors", "Errors", "The error of every case", needs="errors"),
    Section("outliers", "Outliers", "What is off, and why", needs="outliers"),
    Section("fitted", "Fitted", "What is fitted", needs="fitted"),
    Section("numbers", "Numbers", "Every number"),
    Section("approximations", "Not modelled", "What was not modelled"),
    Section("sources", "Sources", "Where the figures come from"),
)

#: Verdicts as the tables show them, and their tone.
_TONES = {
    "within": ("✓ within", "good"),
    "explained": ("▲ explained", ""),
    "other versions": ("▲ other versions", ""),
    "unexplained": ("✗ unexplained", "bad"),
    "no result": ("✗ no result", "bad"),
    "no claim": ("first estimate", "muted"),
}


def build(validation: Validation, output: Path) -> Path:
    """Write `output/index.html` and return its path.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_page(render(validation), output)


def render(validation: Validation) -> str:
    """The page's HTML. It loads nothing from anywhere; the same validation gives the same bytes."""
    from profiler.report.templating import environment

    page = environment("profiler.validation", "profiler.report").get_template("page.html")
    return page.render(context(validation))


def context(validation: Validation) -> dict[str, Any]:
    """What the template is given."""
    drawn = [one for one in validation.figures if one.error is not None]
    summaries = summarise(validation.figures)
    found = outliers(validation)
    content: dict[str, Any] = {
        "title": TITLE,
        "command": validation.command,
        "style_light": palette.style_variables("light"),
        "style_dark": palette.style_variables("dark"),
        "swatch": lambda category: palette.category_role(category).css,
        "facts": facts(validation),
        "sentences": sentences(validation, summaries),
        "summary": summary_table(validation, summaries),
        "scatter": scatter(validation, drawn),
        "errors": error_figures(validation, drawn),
        "outliers": found,
        "outliers_said": outliers_said(validation),
        "fitted": fitted(validation, summaries),
        "scans": scans(validation),
        "numbers": numbers(validation),
        "approximations": approximations(validation),
        "cells": validation.cells,
        "groups": validation.groups,
        "environment": environments(validation),
        "download": download(validation),
    }
    content["sections"] = [item for item in SECTIONS if not item.needs or content[item.needs]]
    return content


def facts(validation: Validation) -> list[tuple[str, list[str]]]:
    """What was compared, in short."""
    cases = {(one.group, one.case) for one in validation.figures}
    return [
        ("measured on", distinct(group.card for group in validation.groups)),
        ("runs", [str(len(cases))]),
        ("numbers", [str(len(validation.figures))]),
        (
            "simulated with",
            distinct(
                f"{name} {one[name]}"
                for one in validation.environments.values()
                for name in ("transformers", "peft", "torch", "bitsandbytes")
                if one.get(name)
            ),
        ),
    ]


def sentences(validation: Validation, summaries: Sequence[Summary]) -> list[str]:
    """The answer, computed."""
    claimed = [one for one in validation.figures if one.bound is not None]
    count = {name: sum(one.verdict == name for one in claimed) for name in _TONES}
    said = []
    if claimed:
        off = [
            f"{count['explained']} are off for a reason that is known" * bool(count["explained"]),
            f"{count['other versions']} are of other library versions than the bound is claimed for"
            * bool(count["other versions"]),
            f"{count['unexplained']} are off and unexplained" * bool(count["unexplained"]),
            f"{count['no result']} have no prediction" * bool(count["no result"]),
        ]
        rest = listing([one for one in off if one])
        said.append(
            f"{count['within']} of {len(claimed)} numbers are within the bound claimed for them"
            + (f"; {rest}." if rest else ".")
        )
    for group in validation.groups:
        said += _group_sentences(group, [one for one in summaries if one.group == group.id])
    return said


def _group_sentences(group: GroupInfo, summaries: Sequence[Summary]) -> list[str]:
    memory = [
        one
        for one in summaries
        # The phases' highest is the peak, which is said.
        if one.bound
        and one.median is not None
        and not one.metric.startswith("phases.")
        and one.metric != "time.step"
    ]
    said = []
    if memory:
        parts = [
            f"{metric(one.metric).label} {_size(one.median)} (worst {_error(one.worst)}"
            + (f", {one.worst_case})" if one.cases > 1 else ")")
            for one in memory
        ]
        said.append(f"{group.title}: median error of {listing(parts)}.")
    for one in summaries:
        if one.metric == "time.step" and one.median is not None:
            ranks = (
                f", rank correlation {one.rank_correlation:.2f}"
                if one.rank_correlation is not None and one.cases >= RANKED
                else ""
            )
            if one.bound:
                said.append(
                    f"{group.title}: median error of {one.cases} step times {_size(one.median)} "
                    f"(worst {_error(one.worst)}, {one.worst_case}){ranks}."
                )
            else:
                said.append(
                    f"Its step time is a first estimate, without a bound: median error "
                    f"{_size(one.median)}{ranks}."
                )
    return said


def summary_table(validation: Validation, summaries: Sequence[Summary]) -> Table:
    """The errors of each group's metrics."""
    titles = {group.id: group.title for group in validation.groups}
    groups = []
    for group in distinct(one.group for one in summaries):
        rows = []
        for one in summaries:
            if one.group != group:
                continue
            cases, median, worst, bound, within, ranks = summary_fields(one)
            rows.append(
                [
                    Field(metric(one.metric).label),
                    Field(cases),
                    Field(median, one.median, "error"),
                    Field(worst, one.worst, "error", one.worst_case),
                    Field(bound),
                    Field(within, tone="bad" if one.wrong else ""),
                    Field(ranks),
                ]
            )
        groups.append(Rows(titles.get(group, group), rows))
    return Table(
        caption="Errors of the simulation, by group and metric",
        columns=[
            Column("metric", number=False),
            Column("cases"),
            Column("median error", "of its size"),
            Column("worst"),
            Column("bound"),
            Column("within the bound"),
            Column("rank correlation", "Spearman"),
        ],
        groups=groups,
    )


def scatter(validation: Validation, drawn: Sequence[Figure]) -> FigureGroup | None:
    """Predicted against measured, memory and time in a panel each."""
    ids = [group.id for group in validation.groups]
    panels = []
    for kind, heading in (("bytes", "memory"), ("seconds", "step time")):
        points = [
            one
            for one in drawn
            # A file of some KiB would leave no room for the memory.
            if one.kind == kind
            and not one.metric.startswith("params.")
            and one.predicted
            and one.measured > 0
        ]
        if points:
            claimed = kind == "bytes" or all(one.bound for one in points)
            detail = f"{len(points)} numbers" + ", some a first estimate" * (not claimed)
            drawing = figures.scatter(points, ids, f"{kind}-point")
            panels.append(_panel(heading, detail, drawing, f"scatter-{kind}"))
    if not panels:
        return None
    legend = [
        (
            f"{figures.MARKERS[place % len(figures.MARKERS)][1]} {group.title}",
            palette.series_role(place).css,
        )
        for place, group in enumerate(validation.groups)
    ]
    return FigureGroup(
        caption="Memory and step time: simulated against measured",
        sources=(),
        legend=legend,
        panels=panels,
    )


def error_figures(validation: Validation, drawn: Sequence[Figure]) -> list[FigureGroup]:
    """The error of each case, a panel for each metric with a bound."""
    result = []
    for place, group in enumerate(validation.groups):
        mine = [one for one in drawn if one.group == group.id and one.bound]
        panels = []
        for number, name in enumerate(distinct(one.metric for one in mine)):
            rows = [one for one in mine if one.metric == name]
            rows.sort(key=lambda one: (-(one.error or 0.0), one.case))
            limit = _extent([abs(one.error or 0.0) for one in rows], rows[0].bound or 0.0)
            ident = f"errors-{place}-{number}"
            drawing = figures.errors(rows, place, ident, limit=limit)
            panels.append(
                _panel(metric(name).label, f"bound {bound_of(rows[0].bound)}", drawing, ident)
            )
        if panels:
            result.append(FigureGroup(group.title, (), legend=[], panels=panels))
    return result


def _extent(sizes: Sequence[float], bound: float) -> float:
    """The error at an axis' end: the largest, unless that would leave the others no room."""
    usual = max(4 * bound, 6 * statistics.median(sizes))
    return 1.08 * max(1.6 * bound, min(max(sizes), usual))


def outliers(validation: Validation) -> Table | None:
    """What is outside its bound, with the reason."""
    off = [one for one in validation.figures if one.verdict not in ("within", "no claim")]
    if not off:
        return None
    return Table(
        caption="Outside the bound",
        columns=[
            Column("case", number=False),
            Column("metric", number=False),
            Column("predicted", source="simulated"),
            Column("measured", source="measured"),
            Column("error"),
            Column("bound"),
        ],
        groups=[
            Rows(
                _TONES[verdict][0],
                [
                    [
                        Field(one.case, code=True),
                        Field(metric(one.metric).label),
                        Field(number_of(one.predicted, one.kind), one.predicted, one.kind),
                        Field(number_of(one.measured, one.kind), one.measured, one.kind),
                        Field(_error(one.error), one.error, "error"),
                        Field(bound_of(one.bound)),
                    ]
                    for one in same
                ],
                f"{why[0].upper()}{why[1:].rstrip('.')}." if why else "No reason is known.",
            )
            for (verdict, why), same in _by_reason(off).items()
        ],
    )


def _by_reason(off: Sequence[Figure]) -> dict[tuple[str, str], list[Figure]]:
    """Figures by verdict and explanation, the unexplained first."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for one in sorted(off, key=lambda one: one.verdict not in WRONG):
        groups.setdefault((one.verdict, one.explanation), []).append(one)
    return groups


def outliers_said(validation: Validation) -> str:
    """How many figures are off without a known reason."""
    wrong = [one for one in validation.figures if one.verdict in WRONG]
    if not wrong:
        return "Every number outside its bound has a known reason."
    names = distinct(one.case for one in wrong)
    return (
        f"{len(wrong)} number{'s' if len(wrong) != 1 else ''} of {len(names)} "
        f"case{'s' if len(names) != 1 else ''} are outside their bound and unexplained."
    )


def fitted(validation: Validation, summaries: Sequence[Summary]) -> list[str]:
    """The fitted numbers, and what is left of the error's median with them."""
    left = {(one.group, one.metric): one for one in summaries}
    said = []
    for group in validation.groups:
        for run in group.runs:
            if run.scan is not None:
                now = left.get((group.id, run.scan.metric))
                text = f"{group.title}: {run.scan.field.replace('_', ' ')} {run.value:g}"
                said.append(f"{text}, in {run.about}. {run.scan.reason}{_left(now)}")
            for constant in run.constants:
                now = left.get((group.id, constant.metric))
                label = metric(constant.metric).label
                said.append(
                    f"{group.title}: {units.difference(constant.value)} bytes in every prediction "
                    f"of what is {label}. "
                    f"{constant.reason}{_left(now)}"
                )
    return said


def _left(summary: Summary | None) -> str:
    if summary is None or summary.median_signed is None:
        return ""
    return (
        f" The median signed error of the {summary.cases} cases here is "
        f"{_error(summary.median_signed)}."
    )


def scans(validation: Validation) -> list[Table]:
    """The values that were tried for each fitted field."""
    return [
        Table(
            caption=f"{group.title}: {metric(run.scan.metric).label} by {run.scan.field}",
            columns=[
                Column(run.scan.field.replace("_", " "), number=False),
                Column("median signed error"),
                Column("cases"),
            ],
            groups=[
                Rows(
                    "",
                    [
                        [Field(str(value)), Field(_error(error), error, "error"), Field(str(cases))]
                        for value, error, cases in run.scan.points
                    ],
                )
            ],
        )
        for group in validation.groups
        for run in group.runs
        if run.scan is not None and run.scan.points
    ]


def numbers(validation: Validation) -> list[tuple[str, Table]]:
    """Every number of every case, a table for each group."""
    result = []
    for group in validation.groups:
        mine = [one for one in validation.figures if one.group == group.id]
        versions = {one.case: one.versions for one in validation.cells if one.group == group.id}
        whose = "measured" if group.given else "published (measured)"
        table = Table(
            caption=group.title,
            columns=[
                Column("metric", number=False),
                Column("predicted", source="simulated"),
                Column("measured" if group.given else "published", source="measured"),
                Column("difference", "predicted less measured"),
                Column("error"),
                Column("bound"),
                Column("verdict", number=False),
            ],
            groups=[
                Rows(
                    case,
                    [_number_row(one, whose) for one in mine if one.case == case],
                    _case_note(versions.get(case, ""), [one for one in mine if one.case == case]),
                )
                for case in distinct(one.case for one in mine)
            ],
        )
        count = len({one.case for one in mine})
        result.append((f"{group.title}: {count} run{'s' if count != 1 else ''}", table))
    return result


def _case_note(versions: str, figures: Iterable[Figure]) -> str:
    """What is said of a case below its numbers."""
    said = distinct(one.explanation for one in figures if one.verdict == "explained")
    return " ".join([*said, *([f"{versions[0].upper()}{versions[1:]}."] if versions else [])])


def _number_row(one: Figure, whose: str) -> list[Field]:
    difference = None if one.predicted is None else one.predicted - one.measured
    size = units.NONE
    if difference is not None:
        plain = number_of(abs(difference), one.kind)
        size = units.signed(difference, plain)
    constant = f"{units.difference(one.constant)} added" if one.constant else ""
    return [
        Field(metric(one.metric).label),
        Field(number_of(one.predicted, one.kind), one.predicted, one.kind, constant),
        Field(number_of(one.measured, one.kind), one.measured, one.kind, whose),
        Field(size),
        Field(_error(one.error), one.error, "error"),
        Field(bound_of(one.bound)),
        _verdict(one),
    ]


def _verdict(one: Figure) -> Field:
    text, tone = _TONES[one.verdict]
    if one.verdict == "no claim" and one.metric != "time.step":
        text = "no bound"
    return Field(text, tip=one.explanation, tone=tone)


def approximations(validation: Validation) -> list[tuple[str, int]]:
    """Each sentence on what was not modelled, with the number of cells it concerns."""
    counts: dict[str, int] = {}
    for cell in validation.cells:
        for sentence in distinct(cell.approximations):
            counts[sentence] = counts.get(sentence, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def environments(validation: Validation) -> list[tuple[str, list[str]]]:
    """Each key of the environments with its values."""
    found = validation.environments.values()
    names = distinct(name for one in found for name in one)
    rows = [
        (name, distinct(_plain(one[name]) for one in found if one.get(name) is not None))
        for name in names
    ]
    return [(name, values) for name, values in rows if values]


def download(validation: Validation) -> str:
    """The numbers as gzipped JSON in a data URI."""
    data = json.dumps(json.loads(validation.to_json()), ensure_ascii=True).encode("ascii")
    # A fixed time stamp: the same validation gives the same page.
    encoded = base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")
    return f"data:application/gzip;base64,{encoded}"


def _panel(heading: str, detail: str, drawing: Drawing, ident: str) -> Panel:
    from markupsafe import Markup

    # The SVG comes from the XML writer, which has escaped every name in it.
    return Panel(heading, detail, Markup(svg.inline(drawing, ident)))


def _error(error: float | None) -> str:
    return units.NONE if error is None else units.fine_percent(error)


def _size(error: float | None) -> str:
    return _error(error).lstrip("+")


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
