"""The chart of what each module holds: an icicle, the model above, its innermost modules below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from profiler.analysis.module_paths import alike
from profiler.report import interactive
from profiler.report.cells import Cell, distinct
from profiler.report.interactive import Chart
from profiler.report.thinning import choosable
from profiler.report.timeline import choices

ALL = "all"

#: From the model to its innermost modules; the text on them is dark in both themes.
SHADES = ("#e3ecf7", "#d0e0f2", "#bdd4ec", "#a9c8e7", "#96bce1", "#82b0dc", "#6fa4d6")


def chart(cells: Sequence[Cell]) -> Chart | None:
    """The chart of the cells whose modules are known, None if there are none."""
    found = [cell for cell in cells if cell.memory.modules]
    shown = choosable(found)
    if not shown:
        return None
    import altair as alt

    names = choices(shown)
    kinds = distinct(
        kind for cell in shown for parts in cell.memory.modules.values() for kind in parts
    )
    rows = [
        {"cell": name, "what": label, **rectangle}
        for cell, name in zip(shown, names, strict=True)
        for label, which in [(ALL, kinds), *((kind.replace("_", " "), [kind]) for kind in kinds)]
        for rectangle in rectangles(cell.memory.modules, which)
    ]
    deepest = max((row["depth"] for row in rows), default=0)
    picked = alt.param(
        name="modules_cell", value=names[0], bind=alt.binding_select(options=names, name="Run ")
    )
    what = alt.param(
        name="modules_what",
        value=ALL,
        bind=alt.binding_select(
            options=[ALL, *(kind.replace("_", " ") for kind in kinds)], name="What "
        ),
    )
    base = (
        alt.Chart(alt.InlineData(values=rows))
        .transform_filter("datum.cell == modules_cell && datum.what == modules_what")
        .transform_joinaggregate(total="max(end)")
        .transform_calculate(
            x0="datum.start / 1073741824",
            x1="datum.end / 1073741824",
            gib="format((datum.end - datum.start) / 1073741824, '.3f') + ' GiB'",
            exact="format(datum.end - datum.start, ',') + ' bytes'",
            middle="(datum.start + datum.end) / 2147483648",
        )
    )
    place = alt.Y("depth:O", title=None, axis=None, scale=alt.Scale(paddingInner=0.04))
    boxes = base.mark_rect(stroke="#5c646f", strokeWidth=0.6).encode(
        x=alt.X("x0:Q", title="GiB", axis=alt.Axis(grid=False), scale=alt.Scale(nice=False)),
        x2="x1:Q",
        y=place,
        color=alt.Color(
            "depth:O",
            legend=None,
            scale=alt.Scale(
                domain=list(range(deepest + 1)),
                range=[SHADES[min(depth, len(SHADES) - 1)] for depth in range(deepest + 1)],
            ),
        ),
        tooltip=[
            alt.Tooltip("path:N", title="module"),
            alt.Tooltip("gib:N", title="holds"),
            alt.Tooltip("exact:N", title="exactly"),
        ],
    )
    words = (
        base.transform_filter(
            "(datum.end - datum.start) / datum.total * width > 7.5 * length(datum.name) + 4"
        )
        .mark_text(color="#1b1f24")
        .encode(x="middle:Q", y=place, text="name:N")
    )
    drawn = (
        alt.layer(boxes, words)
        .add_params(picked, what)
        .properties(width="container", height=34 * (deepest + 1))
    )
    return interactive.chart(
        "modules-chart",
        "What each module holds at the peak",
        drawn,
        label="Boxes in rows: the model above, its modules below, each as wide as the bytes that "
        "it and the modules inside it hold.",
        sources=distinct(cell.source for cell in shown),
        notes=["Layers of a stack are one box, named with a *. Choose a run and what is counted."],
    )


def rectangles(
    modules: Mapping[str, Mapping[str, int]], kinds: Iterable[str]
) -> list[dict[str, Any]]:
    """The boxes of an icicle: `start` and `end` in bytes, `depth` from the model down.

    A module's box is as wide as its own bytes and those of the modules inside it, which stand below
    it from its left end on, the largest first.
    """
    kinds = list(kinds)
    own: dict[str, int] = {}
    for path, parts in modules.items():
        nbytes = sum(parts.get(kind, 0) for kind in kinds)
        if nbytes > 0:
            own[alike(path)] = own.get(alike(path), 0) + nbytes
    sizes: dict[str, int] = {}
    children: dict[str, set[str]] = {}
    for path, nbytes in own.items():
        parents = path.split(".") if path else []
        sizes[""] = sizes.get("", 0) + nbytes
        for length in range(1, len(parents) + 1):
            inner, outer = ".".join(parents[:length]), ".".join(parents[: length - 1])
            sizes[inner] = sizes.get(inner, 0) + nbytes
            children.setdefault(outer, set()).add(inner)
    result: list[dict[str, Any]] = []

    def put(path: str, outer: str, start: int, depth: int) -> None:
        inner = sorted(children.get(path, ()), key=lambda one: (-sizes[one], one))
        # A module that only holds one other says nothing of its own.
        while len(inner) == 1 and sizes[inner[0]] == sizes[path]:
            path = inner[0]
            inner = sorted(children.get(path, ()), key=lambda one: (-sizes[one], one))
        end = start + sizes[path]
        name = path.removeprefix(f"{outer}.") if depth else "the model"
        shown = {"name": name, "path": path or "the model", "depth": depth}
        result.append({**shown, "start": start, "end": end})
        for one in inner:
            put(one, path, start, depth + 1)
            start += sizes[one]

    if sizes.get(""):
        put("", "", 0, 0)
    return result
