"""The page of advice: a heat map of what fits by card and method, and the answers as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profiler.advisor.advice import LENGTH_STEP, Advice, Find
from profiler.advisor.results import Results
from profiler.files import write_page
from profiler.report import interactive, palette, units
from profiler.report.interactive import Chart
from profiler.report.page import Section
from profiler.report.palette import category_label
from profiler.report.tables import Column, Field, Rows, Table, memory_field

SECTIONS = (
    Section("advice", "Answer", "The answer"),
    Section("heat", "Heat map", "The largest that fits"),
    Section("answers", "Every answer", "Every answer"),
    Section("approximations", "Not modelled", "What was not modelled"),
    Section("asked", "Provenance", "Provenance"),
)

WHAT: dict[Find, str] = {"batch": "largest batch", "length": "longest sequence, tokens"}

#: How a change is written on the map.
MARKS = {
    "": "",
    "checkpointing": " c",
    "nf4-dq weights": " q",
    "nf4-dq weights and checkpointing": " qc",
}
#: From the smallest number to the largest; the text on them is dark in both themes.
SHADES = ("#eef4fb", "#d0e0f2", "#a9c8e7", "#82b0dc")
NOTHING = "#d9d9d9"


def build(results: Results, output: Path) -> Path:
    """Write `output/index.html` and return its path.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_page(render(results), output)


def render(results: Results) -> str:
    """The page's HTML. It loads nothing from anywhere; the same results give the same bytes."""
    from profiler.report.templating import environment

    page = environment("profiler.advisor", "profiler.report").get_template("page.html")
    return page.render(context(results))


def context(results: Results) -> dict[str, Any]:
    """What the template is given."""
    charts = [heat(results, find) for find in results.finds]
    workloads = {
        (one.find, one.advice.seq_len if one.find == "batch" else one.advice.batch_size)
        for one in results.answers
    }
    return {
        "title": results.title,
        "command": results.command,
        "style_light": palette.style_variables("light"),
        "style_dark": palette.style_variables("dark"),
        "swatch": lambda category: palette.category_role(category).css,
        "sections": SECTIONS,
        "sources": ["simulated"],
        "kicker": f"{len(results.answers)} answers, each simulated whole",
        "facts": [
            ("model", [results.model]),
            ("cards", results.devices),
            (
                "searched",
                [
                    f"{WHAT[find]}, at {number} {'tokens' if find == 'batch' else 'a batch'}"
                    for find, number in sorted(workloads)
                ],
            ),
        ],
        "sentences": results.sentences(),
        "charts": charts,
        "tables": [
            table(results.of(device, find), device, find)
            for find in results.finds
            for device in results.devices
        ],
        "step": LENGTH_STEP,
        "approximations": [(text, len(results.answers)) for text in results.approximations],
        "cells": results.answers,
        "environment": [
            (name, value if isinstance(value, str) else ", ".join(map(str, value)))
            for name, value in results.environment.items()
            if isinstance(value, str | list)
        ],
    }


def heat(results: Results, find: Find) -> Chart:
    """Methods by cards, each with the largest number that fits."""
    import altair as alt

    methods = _by_need(results, find)
    rows = [
        _square(one, device, find) for device in results.devices for one in results.of(device, find)
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X(
            "card:N",
            title=None,
            sort=results.devices,
            axis=alt.Axis(orient="top", labelAngle=0, ticks=False, domain=False),
        ),
        y=alt.Y(
            "method:N",
            title=None,
            sort=methods,
            axis=alt.Axis(ticks=False, domain=False, labelLimit=150),
        ),
    )
    squares = base.mark_rect(stroke="#5c646f", strokeWidth=0.6).encode(
        color=alt.Color("colour:N", scale=None),
        tooltip=[
            alt.Tooltip(f"{name}:N", title=title)
            for name, title in (
                ("method", "method"),
                ("card", "card"),
                ("said", WHAT[find]),
                ("needs", "needs"),
                ("beyond", "the next one needs"),
                ("speed", "tokens/s, predicted"),
            )
        ],
    )
    words = base.mark_text(color="#1b1f24").encode(text="text:N")
    drawn = alt.layer(squares, words).properties(width="container", height=30 * len(methods))
    return interactive.chart(
        f"fits-{find}",
        f"{results.model}: {WHAT[find]}",
        drawn,
        label=f"A square for each method and card with the {WHAT[find]} that fits. The tables "
        "below hold the same.",
        sources=["simulated"],
        notes=[
            "c: with gradient checkpointing, without which it does not fit; q: with 4-bit weights; "
            "+: the search's limit fits, too; –: nothing fits, whatever is changed."
        ],
    )


def _by_need(results: Results, find: Find) -> list[str]:
    """Methods, first those that have most room on all cards together."""
    room: dict[str, float] = {}
    for one in results.answers:
        if one.find == find:
            number = _number(one.advice, find)
            room[one.advice.method] = room.get(one.advice.method, 0) + math.log2(1 + number)
    return sorted(room, key=lambda method: (-room[method], method))


def _number(one: Advice, find: Find) -> int:
    if one.status != "fits":
        return 0
    return one.batch_size if find == "batch" else one.seq_len


def _square(one: Advice, device: str, find: Find) -> dict[str, Any]:
    number = _number(one, find)
    said = f"{number}{'+' if one.capped else ''}"
    steps = math.log2(max(1, number if find == "batch" else number / LENGTH_STEP))
    return {
        "method": one.method,
        "card": device,
        "number": number,
        "text": f"{said}{MARKS.get(one.change, ' *')}" if number else units.NONE,
        "said": (f"{said} with {one.change}" if one.change else said) if number else _why(one),
        "needs": units.gib_unit(one.needed, 2),
        "beyond": units.gib_unit(one.beyond, 2),
        "speed": units.NONE if one.tokens_per_second is None else f"{one.tokens_per_second:,.0f}",
        "colour": SHADES[min(int(steps / 2), len(SHADES) - 1)] if number else NOTHING,
    }


def _why(one: Advice) -> str:
    return "does not fit" if one.status == "too large" else one.status


def table(advice: Sequence[Advice], device: str, find: Find) -> Table:
    """The answers on one card, in their order."""

    def row(one: Advice) -> list[Field]:
        number = _number(one, find)
        holder = units.NONE
        if one.holder is not None:
            holder = f"{category_label(one.holder[0])} {units.gib_unit(one.holder[1])}"
        free = None
        if number and one.needed is not None and one.capacity is not None:
            free = one.capacity - one.needed
        speed, trainable = Field(units.NONE), Field(units.NONE)
        if one.tokens_per_second is not None:
            rate = one.tokens_per_second
            speed = Field(units.count(round(rate)), rate, "rate")
        if one.trainable is not None:
            trainable = Field(units.count(one.trainable), one.trainable, "count")
        return [
            Field(one.method, code=True),
            Field(
                (one.change and f"with {one.change}") or "as it is" if number else _why(one),
                tip=one.reason,
                tone="" if number else "bad",
            ),
            Field(f"{number}{'+' if one.capped else ''}" if number else units.NONE, number),
            memory_field(one.needed),
            memory_field(free),
            memory_field(one.beyond),
            speed,
            trainable,
            Field(holder),
        ]

    return Table(
        caption=f"{device}: {WHAT[find]}",
        columns=[
            Column("method", number=False),
            Column("fits", number=False),
            Column("batch" if find == "batch" else "tokens", "largest"),
            Column("needs", "GiB"),
            Column("free", "GiB"),
            Column("the next", "needs, GiB"),
            Column("tokens", "per second, predicted"),
            Column("trainable"),
            Column("most of the peak", number=False),
        ],
        groups=[Rows("", [row(one) for one in advice])],
        source="simulated",
    )
