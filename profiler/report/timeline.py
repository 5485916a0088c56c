"""The chart of one step's memory over its allocations, category by category."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from profiler.record import Timeline
from profiler.report import interactive, palette
from profiler.report.cells import Cell, distinct
from profiler.report.interactive import Chart
from profiler.report.thinning import choosable
from profiler.trace import CATEGORIES

#: Points of each run: beyond them a page grows and nothing more is seen.
POINTS = 200


def chart(cells: Sequence[Cell]) -> Chart | None:
    """The chart of the cells that have a timeline, None if none has."""
    found = [cell for cell in cells if cell.memory.timeline and cell.memory.timeline.event]
    shown = choosable(found)
    if not shown:
        return None
    import altair as alt

    names = choices(shown)
    held = {name for cell in shown for name in _of(cell).allocated}
    categories = [name for name in CATEGORIES if name in held] + sorted(held - set(CATEGORIES))
    fields = [f"c{index}" for index in range(len(categories))]
    labels = [palette.category_label(name) for name in categories]
    rows, phases = [], []
    for cell, name in zip(shown, names, strict=True):
        row, starts = _row(_of(cell), name, categories)
        rows.append(row)
        phases += starts
    picked = alt.param(
        name="timeline_cell",
        value=names[0],
        bind=alt.binding_select(options=names, name="Run "),
    )
    flat = (
        alt.Chart(alt.InlineData(values=rows))
        .transform_filter("datum.cell == timeline_cell")
        .transform_flatten(["event", "next", "phase", "reserved", *fields])
    )
    # Vega finds a field by what its name reads as: numbers stand for the categories' names.
    areas = (
        flat.transform_fold(fields, as_=["key", "bytes"])
        .transform_calculate(
            rank="toNumber(slice(datum.key, 1))",
            category=f"{json.dumps(labels)}[toNumber(slice(datum.key, 1))]",
            gib="datum.bytes / 1073741824",
        )
        .mark_area(interpolate="step-after", strokeWidth=0)
        .encode(
            x=alt.X(
                "event:Q",
                title="allocations and frees of the step",
                axis=alt.Axis(grid=False),
                scale=alt.Scale(nice=False),
            ),
            y=alt.Y("gib:Q", title="GiB", stack="zero"),
            color=alt.Color(
                "category:N",
                title=None,
                scale=alt.Scale(
                    domain=labels,
                    range=[palette.category_role(name).light for name in categories],
                ),
                legend=None,
            ),
            order=alt.Order("rank:Q"),
        )
    )
    reserved = (
        flat.transform_filter("datum.reserved !== null")
        .transform_calculate(gib="datum.reserved / 1073741824")
        .mark_line(interpolate="step-after", strokeWidth=1.5, strokeDash=[5, 3])
        .encode(x="event:Q", y="gib:Q")
    )
    sizes = {
        label: f"format(datum.{field} / 1073741824, '.2f') + ' GiB'"
        for label, field in zip(labels, fields, strict=True)
    }
    total = " + ".join(f"datum.{field}" for field in fields)
    tips = {f"t{index}": text for index, text in enumerate(sizes.values())}
    zoom = alt.selection_interval(bind="scales", encodings=["x"], name="timeline_zoom")
    seen = (
        flat.transform_calculate(
            allocated=f"format(({total}) / 1073741824, '.2f') + ' GiB'",
            held="datum.reserved === null ? 'none' : "
            "format(datum.reserved / 1073741824, '.2f') + ' GiB'",
            **tips,
        )
        .mark_rect(opacity=0)
        .encode(
            x="event:Q",
            x2="next:Q",
            tooltip=[
                alt.Tooltip("phase:N"),
                alt.Tooltip("allocated:N"),
                alt.Tooltip("held:N", title="reserved"),
                *(
                    alt.Tooltip(f"{tip}:N", title=label)
                    for tip, label in zip(tips, labels, strict=True)
                ),
            ],
        )
        .add_params(zoom)
    )
    begins = alt.Chart(alt.InlineData(values=phases)).transform_filter(
        "datum.cell == timeline_cell"
    )
    rules = begins.mark_rule(strokeWidth=1).encode(x="event:Q")
    words = begins.mark_text(align="left", dx=4, dy=3, baseline="top").encode(
        x="event:Q", y=alt.value(0), text="phase:N"
    )
    drawn = (
        alt.layer(areas, reserved, rules, words, seen)
        .add_params(picked)
        .properties(width="container", height=320)
    )
    left = len(found) - len(shown)
    return interactive.chart(
        "timeline-chart",
        "Memory of one step, allocation by allocation",
        drawn,
        label="Areas stacked by category over the allocations and frees of a step, with what the "
        "allocator has reserved as a dashed line, and a line where each phase begins. The table "
        "of the breakdown holds the figures of the peak.",
        sources=distinct(cell.source for cell in shown),
        legend=[
            (palette.category_label(name), palette.category_role(name).css) for name in categories
        ],
        notes=[
            "Choose a run; the wheel zooms, dragging moves, and the figures of a moment are shown "
            "on hover." + (f" {len(shown)} of {len(found)} runs can be chosen." if left else "")
        ],
    )


def choices(cells: Sequence[Cell]) -> list[str]:
    """A name for each cell in a list of all, none twice."""
    several = len(distinct((cell.model, cell.device, cell.source) for cell in cells)) > 1
    names = [
        " · ".join([cell.short, cell.model, cell.device, cell.source]) if several else cell.short
        for cell in cells
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({cell.key})"
        for name, cell in zip(names, cells, strict=True)
    ]


def _of(cell: Cell) -> Timeline:
    timeline = cell.memory.timeline
    assert timeline is not None
    return timeline


def _row(
    timeline: Timeline, name: str, categories: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A cell's points, column by column, and where its phases begin."""
    count = len(timeline.event)
    totals = [
        sum(column[index] for column in timeline.allocated.values()) for index in range(count)
    ]
    begins = [
        index
        for index, phase in enumerate(timeline.phase)
        if index == 0 or phase != timeline.phase[index - 1]
    ]
    kept = _kept(count, {totals.index(max(totals)), count - 1, *begins})
    empty = [0] * count
    events = [timeline.event[index] - timeline.event[0] for index in kept]
    row: dict[str, Any] = {
        "cell": name,
        "event": events,
        "next": [*events[1:], events[-1]],
        "phase": [timeline.phase[index] for index in kept],
        "reserved": [timeline.reserved[index] if timeline.reserved else None for index in kept],
    }
    for number, category in enumerate(categories):
        column = timeline.allocated.get(category, empty)
        row[f"c{number}"] = [column[index] for index in kept]
    starts = [
        {
            "cell": name,
            "event": timeline.event[index] - timeline.event[0],
            "phase": timeline.phase[index],
        }
        for index in begins
    ]
    return row, starts


def _kept(count: int, must: set[int]) -> list[int]:
    """Places of evenly spread points, and of those that must be there."""
    step = max(1, -(-count // POINTS))
    return sorted(must | set(range(0, count, step)))
