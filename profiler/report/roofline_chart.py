"""The roofline: each kernel by what it computes for a byte, and how fast it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from profiler.hardware import devices
from profiler.report import interactive, palette
from profiler.report.cells import Cell, distinct
from profiler.report.figures import timed_phases_of
from profiler.report.interactive import Chart
from profiler.report.text import clean
from profiler.report.thinning import choosable
from profiler.report.timeline import choices

#: The kernels of a run that take longest, of those that compute and move something.
KERNELS = 30


def chart(cells: Sequence[Cell]) -> Chart | None:
    """The chart of the cells whose kernels are known, None if there are none."""
    found = [cell for cell in cells if _kernels(cell, "")]
    shown = choosable(found)
    if not shown:
        return None
    import altair as alt

    names = choices(shown)
    points = [row for cell, name in zip(shown, names, strict=True) for row in _kernels(cell, name)]
    low = min(point["intensity"] for point in points) / 2
    high = max(point["intensity"] for point in points) * 2
    roofs = [
        row
        for cell, name in zip(shown, names, strict=True)
        for row in _roofs(cell, name, low, high)
    ]
    picked = alt.param(
        name="roofline_cell", value=names[0], bind=alt.binding_select(options=names, name="Run ")
    )
    x = alt.X(
        "intensity:Q",
        title="FLOPs for each byte moved",
        scale=alt.Scale(type="log", domain=[low, high]),
        axis=alt.Axis(grid=False, format="~g", labelOverlap=True),
    )
    y = alt.Y(
        "rate:Q",
        title="FLOP/s",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~s", tickCount=5, grid=False),
    )
    here = "datum.cell == roofline_cell"
    phases = timed_phases_of(shown)
    dots = (
        alt.Chart(alt.InlineData(values=points))
        .transform_filter(here)
        .mark_circle(opacity=0.9, strokeWidth=0.6, stroke="#5c646f")
        .encode(
            x=x,
            y=y,
            size=alt.Size(
                "ms:Q",
                title="ms in the step",
                scale=alt.Scale(range=[25, 900]),
                legend=None,
            ),
            color=alt.Color(
                "phase:N",
                title=None,
                scale=alt.Scale(
                    domain=phases,
                    range=[palette.phase_role(index).light for index in range(len(phases))],
                ),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("kernel:N"),
                alt.Tooltip("phase:N"),
                alt.Tooltip("count:Q", format=","),
                alt.Tooltip("ms:Q", format=".4~g"),
                alt.Tooltip("intensity:Q", format=".3~g", title="FLOPs/byte"),
                alt.Tooltip("rate:Q", format=".3~s", title="FLOP/s"),
            ],
        )
    )
    layers: list[Any] = []
    if roofs:
        lines = (
            alt.Chart(alt.InlineData(values=roofs))
            .transform_filter(here)
            .mark_line(strokeWidth=1.5)
            .encode(x=x, y=y, detail="roof:N", tooltip="roof:N")
        )
        ends = (
            alt.Chart(alt.InlineData(values=[row for row in roofs if row["last"]]))
            .transform_filter(here)
            .mark_text(align="right", dy=-7)
            .encode(x=x, y=y, text="roof:N")
        )
        layers = [lines, ends]
    drawn = alt.layer(*layers, dots).add_params(picked).properties(width="container", height=340)
    kinds = distinct(cell.record.time.source for cell in shown if cell.record.time)
    return interactive.chart(
        "roofline-chart",
        "Kernels under the card’s roofline",
        drawn,
        label="A point for each of the longest kernels: FLOPs for each byte to the right, FLOP/s "
        "upwards, both in powers of ten, as large as its share of the time, under the lines of the "
        "card's nominal bandwidth and peaks. The list of ops holds the figures.",
        sources=kinds,
        legend=[(name, palette.phase_role(index).css) for index, name in enumerate(phases)],
        notes=[
            f"The {KERNELS} kernels of a run that take longest and compute something, each as "
            "large as its time. Lines are the datasheet's: memory bandwidth, and the peak with and "
            "without tensor cores. Where the times are predicted, a point's height is too."
        ],
    )


def _kernels(cell: Cell, name: str) -> list[dict[str, Any]]:
    time = cell.record.time
    if time is None:
        return []
    found = [one for one in time.kernels if one.flops > 0 and one.bytes > 0 and one.seconds > 0]
    return [
        {
            "cell": name,
            "kernel": clean(one.name),
            "phase": one.phase,
            "count": one.count,
            "ms": 1e3 * one.seconds,
            "intensity": one.flops / one.bytes,
            "rate": one.flops / one.seconds,
        }
        for one in sorted(found, key=lambda one: -one.seconds)[:KERNELS]
    ]


def _roofs(cell: Cell, name: str, low: float, high: float) -> list[dict[str, Any]]:
    """The lines of a card: what its memory and its units allow at each intensity."""
    device = devices.load().get(str(cell.record.spec.get("device")))
    if device is None:
        return []
    tensor = device.bfloat16_flops or device.float16_flops
    kind = "bfloat16" if device.bfloat16_flops else "float16"
    result = []
    for label, peak in ((f"{kind}, tensor cores", tensor), ("float32", device.float32_flops)):
        ridge = peak / device.memory_bandwidth
        places = sorted({low, min(max(ridge, low), high), high})
        for place in places:
            result.append(
                {
                    "cell": name,
                    "roof": f"{label}: {peak / 1e12:.0f} TFLOP/s",
                    "intensity": place,
                    "rate": min(peak, place * device.memory_bandwidth),
                    "last": math.isclose(place, high),
                }
            )
    return result
