"""What is given up for what: costs and scores against each other, and PSCP with weights to move."""

from __future__ import annotations

import json
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profiler.analysis import score as formulas
from profiler.report import interactive, palette, units
from profiler.report.cells import Cell, distinct, grouped
from profiler.report.interactive import Chart
from profiler.report.scores import Scored
from profiler.report.tables import Column, Field, Rows, Table, name_field

#: What the axes can show: its key, how it is written, and what of it one is on the axis.
AXES = (
    ("memory", "memory, GiB", units.GIB),
    ("time", "step time, s", 1),
    ("trainable", "trainable, millions", 1e6),
    ("flops", "TFLOPs", 1e12),
    ("score", "score", 1),
)
#: The costs of the two forms of PSCP, in the order of alpha, beta and gamma.
EXPONENTIAL = ("trainable", "latency", "memory")
PRODUCT = ("trainable", "flops", "memory")
WEIGHTS = ("alpha", "beta", "gamma")
FORMS = ("exponential", "product")
#: Points of the charts; a page with more has them in its tables.
POINTS = 500
#: Bars of the ranking.
RANKED = 40


@dataclass(frozen=True, slots=True)
class Point:
    """A cell's costs, in base units, and its score where one is known."""

    cell: Cell
    memory: int
    time: float | None
    trainable: int
    flops: int | None
    score: float | None
    latency: float | None

    @property
    def group(self) -> str:
        """Whom it is compared with: a model's runs of one source on one device."""
        return f"{self.cell.model} · {self.cell.device} · {self.cell.source}"


def points(cells: Sequence[Cell], scored: Scored | None) -> list[Point]:
    """The cells that have a memory and a count. Where no latency is known, the step's time for a
    token stands in for it."""
    result = []
    known = scored is not None and all(row.latency is not None for row in scored.rows.values())
    for cell in cells:
        record = cell.record
        if cell.peak is None or record.params is None:
            continue
        row = scored.rows.get(cell.key) if scored else None
        latency = row.latency if row and known else None
        if not known and record.time and record.time.tokens_per_second > 0:
            latency = 1 / record.time.tokens_per_second
        result.append(
            Point(
                cell,
                cell.peak,
                record.time.step if record.time else None,
                record.params.trainable,
                record.flops.total if record.flops else None,
                row.score if row else None,
                latency,
            )
        )
    return result


def ranked(found: Sequence[Point]) -> list[Point]:
    """The points that have a score and every cost of either form."""
    return [
        one
        for one in found
        if None not in (one.score, one.latency, one.flops)
        and min(one.latency or 0, one.flops or 0, one.memory) > 0
    ]


def pareto(found: Sequence[Point]) -> Chart | None:
    """The chart of any two of the costs and the score; None if there is nothing to compare."""
    found = found[:POINTS]
    if len(found) < 2:
        return None
    import altair as alt

    groups = distinct(one.group for one in found)
    axes = [
        (key, label, unit)
        for key, label, unit in AXES
        if any(getattr(one, key) is not None for one in found)
    ]
    labels = [label for _, label, _ in axes]
    rows = [
        {
            "name": one.cell.short,
            "group": one.group,
            "workload": one.cell.workload,
            **{
                f"v{number}": None if (value := getattr(one, key)) is None else value / unit
                for number, (key, _, unit) in enumerate(axes)
            },
        }
        for one in found
    ]
    tips = [alt.Tooltip("name:N", title="method"), "workload:N"]
    tips += [
        alt.Tooltip(f"v{number}:Q", title=label, format=".4~g")
        for number, label in enumerate(labels)
    ]
    second = 1 if len(axes) > 1 and axes[1][0] == "time" else len(axes) - 1
    first = [one for one in found if one.group == groups[0]]
    rated = axes[-1][0] == "score" and any(one.score is not None for one in first)
    up = labels[-1] if rated else labels[second]

    def chosen(name: str) -> str:
        """The value of the axis that a control names; names of records are in no expression."""
        choice = "null"
        for number, label in enumerate(labels):
            choice = f"{name} == {json.dumps(label)} ? datum.v{number} : {choice}"
        return choice

    sign = "== 'score' ? -1 : 1"
    order = [alt.SortField("xc"), alt.SortField("yc")]
    base = (
        alt.Chart(alt.InlineData(values=rows))
        .transform_filter("datum.group == tradeoff_group")
        .transform_calculate(x=chosen("tradeoff_x"), y=chosen("tradeoff_y"))
        .transform_filter("isValid(datum.x) && isValid(datum.y)")
        .transform_calculate(
            xc=f"datum.x * (tradeoff_x {sign})", yc=f"datum.y * (tradeoff_y {sign})"
        )
        .transform_window(best="min(yc)", frame=[None, 0], sort=order)
        .transform_window(before="lag(best)", sort=order)
        .transform_calculate(front="!isValid(datum.before) || datum.yc < datum.before")
    )
    scale = alt.Scale(type="symlog", zero=False, nice=True)  # a score may be 0
    axis = alt.Axis(tickCount=7, labelOverlap=True)
    x = alt.X("x:Q", title=None, scale=scale, axis=axis)
    y = alt.Y("y:Q", title=None, scale=scale, axis=axis)
    front = palette.series_role(1).light
    dots = base.mark_circle(size=90, stroke="#5c646f", strokeWidth=0.6, opacity=0.95).encode(
        x=x,
        y=y,
        color=alt.Color(
            "front:N",
            title=None,
            scale=alt.Scale(domain=[True, False], range=[front, palette.PHASE_COLOURS[0]]),
            legend=None,
        ),
        tooltip=tips,
    )
    line = (
        base.transform_filter("datum.front")
        .mark_line(interpolate="step-after", strokeDash=[4, 3], strokeWidth=1.2)
        .encode(x=x, y=y, order="xc:Q")
    )
    numbered = (
        base.transform_filter("datum.front")
        .transform_window(number="row_number()", sort=[alt.SortField("xc")])
        .transform_joinaggregate(count="count()")
        .transform_calculate(listed="datum.number + '  ' + datum.name")
    )
    numbers = numbered.mark_text(align="left", dx=6, dy=-8).encode(x=x, y=y, text="number:Q")
    # Beside their points the names of close ones would cover each other.
    words = numbered.mark_text(
        align="right", dx=-4, dy=alt.expr("-24 - 15 * (datum.count - datum.number)"), limit=260
    ).encode(x=alt.value("width"), y=alt.value("height"), text="listed:N")
    one = alt.Chart(alt.InlineData(values=[{}]))
    below = (
        one.transform_calculate(t="tradeoff_x + ' →'")
        .mark_text(align="right", baseline="bottom", dx=-2, dy=-4)
        .encode(x=alt.value("width"), y=alt.value("height"), text="t:N")
    )
    beside = (
        one.transform_calculate(t="'↑ ' + tradeoff_y")
        .mark_text(align="left", baseline="top", dx=4, dy=2)
        .encode(x=alt.value(0), y=alt.value(0), text="t:N")
    )
    drawn = (
        alt.layer(line, dots, numbers, words, below, beside)
        .add_params(
            alt.param(
                name="tradeoff_group",
                value=groups[0],
                bind=alt.binding_select(options=groups, name="Runs "),
            ),
            alt.param(
                name="tradeoff_x",
                value=labels[0],
                bind=alt.binding_select(options=labels, name="Across "),
            ),
            alt.param(
                name="tradeoff_y", value=up, bind=alt.binding_select(options=labels, name="Up ")
            ),
        )
        .properties(width="container", height=360)
    )
    return interactive.chart(
        "tradeoff-chart",
        "What is given up for what",
        drawn,
        label="A point for each method by two of its costs, or its score. Those that nothing beats "
        "in both are joined by a dashed line. The table of the methods holds the figures.",
        sources=distinct(point.cell.source for point in found),
        legend=[
            ("nothing is better in both", front),
            ("something is better", palette.PHASE_COLOURS[0]),
        ],
        notes=[
            "Choose the runs and what the axes show. A score is better the higher it is, the rest "
            "the lower. The numbers name the points that nothing beats."
        ],
    )


def ranking(found: Sequence[Point], scored: Scored | None) -> Chart | None:
    """The chart of PSCP with its weights; None where no two points of a group have a score."""
    groups = _groups(found)
    if not groups or scored is None:
        return None
    import altair as alt

    rows = [
        {
            "name": one.cell.short,
            "group": name,
            "score": one.score,
            **{key: float(getattr(one, key)) for key in {*EXPONENTIAL, *PRODUCT}},
        }
        for name, group in groups.items()
        for one in group[:RANKED]
    ]
    params = [
        alt.param(
            name="pscp_group",
            value=rows[0]["group"],
            bind=alt.binding_select(options=list(groups), name="Runs "),
        ),
        alt.param(
            name="pscp_form",
            value=FORMS[0],
            bind=alt.binding_radio(options=list(FORMS), name="Form "),
        ),
    ]
    for name in WEIGHTS:
        params.append(
            alt.param(
                name=f"pscp_{name}",
                value=1,
                bind=alt.binding_range(min=0, max=4, step=0.05, name=f"{name} "),
            )
        )
    usual = constants(ranked(found))
    for key in PRODUCT:
        params.append(
            alt.param(
                name=f"pscp_c_{key}",
                value=usual[key],
                bind=alt.BindInput(input="number", name=f"c of {_NAMES[key]} "),
            )
        )
    penalty = " + ".join(
        f"pscp_{weight} * datum.{key} / datum.max_{key}"
        for weight, key in zip(WEIGHTS, EXPONENTIAL, strict=True)
    )
    product = " * ".join(
        f"pow(1 + datum.{key} / pscp_c_{key}, -pscp_{weight})"
        for weight, key in zip(WEIGHTS, PRODUCT, strict=True)
    )
    largest = {f"max_{key}": f"max({key})" for key in EXPONENTIAL}
    base = (
        alt.Chart(alt.InlineData(values=rows))
        .transform_filter("datum.group == pscp_group")
        .transform_joinaggregate(**largest)
        .transform_calculate(
            pscp=f"datum.score * (pscp_form == 'exponential' ? exp(-({penalty})) : {product})"
        )
        .transform_window(by_score="rank()", sort=[alt.SortField("score", order="descending")])
        .transform_window(
            place="rank()", row="row_number()", sort=[alt.SortField("pscp", order="descending")]
        )
        .transform_calculate(
            moved="format(datum.pscp, '.3~g') + '  (score ' + format(datum.score, '.3~g') + "
            "', place ' + datum.by_score + ')'"
        )
    )
    y = alt.Y("row:O", title=None, axis=None)
    tips = ["name:N", "score:Q", alt.Tooltip("pscp:Q", format=".5~g"), "place:Q", "by_score:Q"]
    bars = base.mark_bar(size=11, yOffset=7, stroke="#5c646f", strokeWidth=0.6).encode(
        y=y, x=alt.X("pscp:Q", title="PSCP", axis=alt.Axis(grid=False)), tooltip=tips
    )
    words = base.mark_text(align="right", dx=-2, dy=-8).encode(
        y=y, x=alt.value("width"), text="moved:N"
    )
    names = base.mark_text(align="left", dx=2, dy=-8, limit=190).encode(
        y=y, x=alt.value(0), text="name:N"
    )
    height = 36 * max(len(group[:RANKED]) for group in groups.values())
    drawn = (
        alt.layer(bars, words, names)
        .add_params(*params)
        .properties(width="container", height=height)
    )
    return interactive.chart(
        "pscp-chart",
        "PSCP: the score, less what it costs",
        drawn,
        label="A bar for each method, the highest PSCP first, with its task score and its place by "
        "that alone. The table below holds the figures with all weights at 1.",
        sources=distinct(one.cell.source for one in ranked(found)),
        notes=[
            f"Scores: {scored.table.source} ({scored.table.metric}).",
            "Exponential: score · exp(−alpha·P/Pmax − beta·L/Lmax − gamma·M/Mmax), P trainable "
            f"parameters, L {_latency(scored)}, M peak memory. Product (arXiv 2511.21285): score · "
            "(1 + P/c)^−alpha · (1 + F/c)^−beta · (1 + M/c)^−gamma, F the FLOPs of a step. The "
            "reference constants c start at each cost's median.",
        ],
    )


#: How a cost is written beside its reference constant.
_NAMES = {"trainable": "parameters", "flops": "FLOPs", "memory": "memory, bytes"}


def _latency(scored: Scored) -> str:
    if all(row.latency is not None for row in scored.rows.values()):
        return "the source's inference latency"
    return "the step's time for a token, since no inference latency is known"


def constants(found: Sequence[Point]) -> dict[str, float]:
    """A reference for each cost of the product form: its median, at least 1."""
    return {
        key: max(1.0, float(statistics.median(getattr(one, key) for one in found)))
        for key in PRODUCT
    }


def pscp(found: Sequence[Point], usual: dict[str, float]) -> list[tuple[float, float]]:
    """Both forms with all weights at 1, of the points of one group."""
    costs = [{key: float(getattr(one, key)) for key in {*EXPONENTIAL, *PRODUCT}} for one in found]
    largest = {key: max(one[key] for one in costs) for key in EXPONENTIAL}
    return [
        (
            formulas.pscp_exponential(
                point.score or 0.0, {key: one[key] for key in EXPONENTIAL}, largest, {}
            ),
            formulas.pscp_product(
                point.score or 0.0, {key: one[key] for key in PRODUCT}, usual, {}
            ),
        )
        for point, one in zip(found, costs, strict=True)
    ]


def tables(found: Sequence[Point]) -> list[Table]:
    """The ranking with all weights at 1, a table for each model, device and source."""
    usual = constants(scored) if (scored := ranked(found)) else {}
    result = []
    for name, group in _groups(found).items():
        both = pscp(group, usual)
        places = [_places([one[form] for one in both]) for form in range(len(FORMS))]
        by_score = _places([point.score or 0.0 for point in group])
        order = sorted(range(len(group)), key=lambda index: -both[index][0])[:RANKED]
        result.append(
            Table(
                caption=f"{name.rpartition(' · ')[0]}: PSCP with all weights at 1",
                columns=[
                    Column("method", number=False),
                    Column("score"),
                    Column("place", "by score"),
                    Column("PSCP", "exponential"),
                    Column("place", "exponential"),
                    Column("PSCP", "product"),
                    Column("place", "product"),
                ],
                groups=[
                    Rows(
                        "",
                        [
                            [
                                name_field(group[index].cell),
                                _number(group[index].score or 0.0, "score"),
                                Field(str(by_score[index])),
                                _number(both[index][0], "pscp"),
                                Field(str(places[0][index])),
                                _number(both[index][1], "pscp"),
                                Field(str(places[1][index])),
                            ]
                            for index in order
                        ],
                    )
                ],
                source=group[0].cell.source,
            )
        )
    return result


def _groups(found: Sequence[Point]) -> dict[str, list[Point]]:
    """The points with a score by whom they are compared with, where there is a comparison."""
    by_cell = {point.cell.key: point for point in ranked(found)}
    groups = grouped(
        (point.cell for point in by_cell.values()), lambda cell: by_cell[cell.key].group
    )
    return {
        name: [by_cell[cell.key] for cell in group]
        for name, group in groups.items()
        if len(group) > 1
    }


def _places(values: Sequence[float]) -> list[int]:
    """The place of each, 1 for the highest; equal ones share theirs."""
    ranked = sorted(values)
    return [1 + len(ranked) - bisect_right(ranked, value) for value in values]


def _number(value: float, unit: str) -> Field:
    return Field(f"{value:.4g}", value, unit, repr(value))


def sentence(found: Sequence[Point]) -> str:
    """Which methods nothing beats in memory, time and, where known, the score; "" for few."""
    parts = []
    by_cell = {one.cell.key: one for one in found if one.time is not None}
    groups = grouped((one.cell for one in by_cell.values()), lambda cell: by_cell[cell.key].group)
    for name, group in list(groups.items())[:3]:
        some: list[Any] = [by_cell[cell.key] for cell in group]
        if len(some) < 3:
            continue
        scored = all(one.score is not None for one in some)
        costs = [(one.memory, one.time, -one.score if scored else 0.0) for one in some]
        best = [one for one, kept in zip(some, formulas.front(costs), strict=True) if kept]
        names = ", ".join(one.cell.short for one in best[:6])
        more = f" and {len(best) - 6} more" if len(best) > 6 else ""
        what = "memory, time and score" if scored else "memory and time"
        place = name.rpartition(" · ")[0]
        parts.append(f"On {place}, nothing beats {names}{more} in {what} together.")
    return " ".join(parts)
