"""Runs of many lengths: the lines are the record's series, and the peak is marked where it is."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.record import History, HistorySeries, Record
from profiler.report import page, runs
from profiler.report.cells import Cell, arrange

GIB = 2**30
STEPS = 1500


def series(*, cuda: bool) -> HistorySeries:
    """Sawteeth, and one spike that no thinning may lose."""
    steps = list(range(1, STEPS + 1))
    allocated = [10 * GIB + (step * 7919 % 1000) * 2**20 for step in steps]
    allocated[776] = 15 * GIB
    reserved = [max(allocated[: step + 1]) + 2**20 for step in range(STEPS)]
    return HistorySeries(
        step=steps,
        batch=[4] * STEPS,
        length=[100 + step % 50 for step in steps],
        peak_allocated=allocated,
        after_step_allocated=[9 * GIB] * STEPS,
        peak_reserved=reserved if cuda else None,
        after_step_reserved=reserved if cuda else None,
    )


def run_of(record: Record, *, cuda: bool = True) -> Record:
    history = History(
        steps=STEPS,
        peak_step=777,
        peak_batch=4,
        peak_length=126,
        reserved_max_step=777 if cuda else None,
        reserved_mean=14.5 * GIB if cuda else None,
        after_step_mean=9.0 * GIB,
        distinct_shapes=50,
        simulated_shapes=5,
        series=series(cuda=cuda),
    )
    return record.model_copy(
        update={"memory": record.memory.model_copy(update={"history": history})}
    )


@pytest.fixture
def cell(study: list[Record]) -> Cell:
    (found,) = arrange([run_of(study[0])])
    return found


def test_lines_are_the_series_and_keep_their_peak(cell: Cell) -> None:
    drawing = runs.over_steps(cell)
    (axes,) = drawing.figure.axes
    assert cell.memory.history is not None
    data = cell.memory.history.series
    lines = {line.get_label(): line for line in axes.lines}
    for name in runs.LINES:
        values = dict(zip(data.step, getattr(data, name), strict=True))
        xy: Any = lines[name].get_data()
        steps, heights = xy
        assert len(steps) <= runs.POINTS + 2
        assert [height * GIB for height in heights] == [values[step] for step in steps]
        assert max(heights) * GIB == max(values.values())
        assert {1, STEPS, 777} <= set(steps)
    (mark,) = [line for line in axes.lines if line.get_marker() == "o"]
    at: Any = mark.get_data()
    assert [list(one) for one in at] == [[777], [15.0]]
    assert "step 777 (4 × 126 tokens)" in drawing.label


def test_without_an_allocator_nothing_is_reserved(study: list[Record]) -> None:
    (cell,) = arrange([run_of(study[0], cuda=False)])
    labels = [line.get_label() for line in runs.over_steps(cell).figure.axes[0].lines]
    assert "peak_reserved" not in labels
    assert [label for label, _ in runs.legend([cell])] == list(runs.LINES.values())[1:]


def test_the_page_has_the_section_only_for_runs(study: list[Record]) -> None:
    plain = page.context(arrange(study), title="A study")
    assert "runs" not in [section.id for section in plain["sections"]]
    both = page.context(arrange([*study[1:], run_of(study[0])]), title="A study")
    assert "runs" in [section.id for section in both["sections"]]
    (table,) = both["run_tables"]
    (row,) = table.groups[0].rows
    exact = [field.exact for field in row]
    assert exact[2] == STEPS
    assert exact[-2:] == [round(14.5 * GIB), 9 * GIB]


def test_many_runs_are_in_the_table_and_some_are_drawn(study: list[Record]) -> None:
    cells = arrange([run_of(record) for record in study])
    groups = page.run_figures(cells)
    assert sum(len(group.panels) for group in groups) == min(page.RUNS, len(cells))
    assert any("runs are drawn" in remark for group in groups for remark in group.remarks)
    assert sum(len(table.groups[0].rows) for table in runs.table(cells)) == len(cells)
