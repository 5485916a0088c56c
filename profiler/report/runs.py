"""Runs of many steps of different lengths: how memory grows over the run, and where it peaks."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.record import History, HistorySeries
from profiler.report import palette, units
from profiler.report.canvas import WIDTH_INCHES, Drawing, Note, style
from profiler.report.cells import Cell, grouped
from profiler.report.tables import Column, Field, Rows, Table, memory_field, name_field

#: The lines, each by the key of `HistorySeries` and as it is written.
LINES = {
    "peak_reserved": "most reserved in a step",
    "peak_allocated": "most allocated in a step",
    "after_step_allocated": "allocated after a step",
}
#: Points of a line; more than its pixels would only make the page larger.
POINTS = 400


def legend(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """The lines that the cells have, and their colours."""
    runs = [cell.memory.history.series for cell in cells if cell.memory.history is not None]
    return [
        (label, palette.series_role(index).css)
        for index, (name, label) in enumerate(LINES.items())
        if any(getattr(series, name) is not None for series in runs)
    ]


def over_steps(cell: Cell) -> Drawing:
    """Lines over the steps of one run; a mark at the step that allocates most."""
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    history = cell.memory.history
    assert history is not None
    series = history.series
    shown = _shown(series)
    notes: dict[str, Note] = {}
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, 2.4))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.13, right=0.97, bottom=0.2, top=0.95)
        for index, (name, label) in enumerate(LINES.items()):
            values = getattr(series, name)
            if values is None:
                continue
            (line,) = axes.plot(
                [series.step[point] for point in shown],
                [values[point] / units.GIB for point in shown],
                label=name,
                color=palette.series_role(index).light,
                linewidth=1.3,
                drawstyle="steps-mid",
            )
            gid = f"{cell.key}-run-{name}"
            line.set_gid(gid)
            notes[gid] = Note(
                f"{cell.name}: {label}, at most {units.gib_unit(max(values), 2)}",
                {"cell": cell.key, "series": name, "most": str(max(values))},
            )
        peak = series.step.index(history.peak_step)
        (mark,) = axes.plot(
            [history.peak_step],
            [series.peak_allocated[peak] / units.GIB],
            marker="o",
            markersize=5,
            color=palette.BAD.light,
            linestyle="none",
        )
        mark.set_gid(f"{cell.key}-run-peak")
        notes[f"{cell.key}-run-peak"] = Note(
            f"{cell.name}: the peak, {where(history)}: "
            f"{units.exact_bytes(series.peak_allocated[peak])}",
            {"cell": cell.key, "step": str(history.peak_step)},
        )
        axes.set_ylim(bottom=0)
        axes.set_xlim(0.5, history.steps + 0.5)
        axes.set_xlabel("step")
        axes.set_ylabel("GiB")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        sns.despine(ax=axes)
    most = series.peak_reserved or series.peak_allocated
    return Drawing(
        figure,
        notes,
        f"Lines over {history.steps} steps, {cell.source}: {cell.short} of {cell.model} on "
        f"{cell.device}. The most is allocated at {where(history)}; "
        f"{units.gib_unit(max(most), 2)} are needed.",
    )


def where(history: History) -> str:
    """The step of the peak and its batch."""
    return f"step {history.peak_step} ({history.peak_batch} × {history.peak_length} tokens)"


def table(cells: Sequence[Cell]) -> list[Table]:
    """One table per model and source of the runs of many lengths."""
    runs = [cell for cell in cells if cell.memory.history is not None]
    return [
        Table(
            f"{group[0].model}: runs of many lengths",
            [
                Column("method", number=False),
                Column("device", number=False),
                Column("steps"),
                Column("the peak", number=False),
                Column("peak allocated", "GiB"),
                Column("peak reserved", "GiB"),
                Column("reserved first at step"),
                Column("mean reserved", "GiB"),
                Column("mean after a step", "GiB"),
            ],
            [Rows("", [_row(cell) for cell in group])],
            group[0].source,
        )
        for group in grouped(runs, lambda cell: (cell.model, cell.source)).values()
    ]


def _row(cell: Cell) -> list[Field]:
    history = cell.memory.history
    assert history is not None
    first = history.reserved_max_step
    return [
        name_field(cell),
        Field(cell.device),
        Field(units.count(history.steps), history.steps, "steps"),
        Field(where(history)),
        memory_field(cell.memory.peak_allocated),
        memory_field(cell.memory.peak_reserved),
        Field(units.NONE if first is None else units.count(first), first, "step"),
        memory_field(None if history.reserved_mean is None else round(history.reserved_mean)),
        memory_field(round(history.after_step_mean)),
    ]


def _shown(series: HistorySeries) -> list[int]:
    """The points that are drawn: of each stretch the highest of any line, and both ends."""
    count = len(series.step)
    stride = max(1, -(-count // (POINTS // len(LINES))))
    kept = {0, count - 1}
    for name in LINES:
        values = getattr(series, name)
        if values is not None:
            kept.update(
                max(range(start, min(start + stride, count)), key=values.__getitem__)
                for start in range(0, count, stride)
            )
    return sorted(kept)
