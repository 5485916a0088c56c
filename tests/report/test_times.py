"""Time: by phase and by op, as the record holds it, measured and predicted apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from profiler.record import Record
from profiler.report import figures, render, times
from profiler.report.cells import arrange

RecordFactory = Callable[..., Record]


def test_measured_and_predicted_are_in_tables_and_figures_of_their_own(
    cpu: RecordFactory, record: RecordFactory, html: Any
) -> None:
    records = [cpu("cpu"), cpu("cpu", "full"), record(), record("full")]
    tables = times.steps(arrange(records))
    assert sorted(table.source for table in tables) == ["measured", "predicted"]
    by_source = {table.source: table for table in tables}
    devices = {source: table.groups[0].heading for source, table in by_source.items()}
    assert devices["measured"].startswith("cpu")
    assert devices["predicted"].startswith("rtx-4090")
    found = html(render(records, title="t"))
    captions = [table.caption for table in found.tables if "time of one" in table.caption]
    shown = [text for text in captions if "parameters" not in text]
    assert len(shown) == 2
    assert all(("measured" in text) != ("predicted" in text) for text in shown)


def test_a_row_is_the_record_s_time(cpu: RecordFactory) -> None:
    (table,) = times.steps(arrange([cpu("cpu")]))
    (row,) = table.groups[0].rows
    found = {column.label: field.exact for field, column in zip(row, table.columns, strict=True)}
    time = cpu("cpu").time
    assert time
    assert time.spread
    assert found["step"] == time.step
    assert {name: found[name] for name in time.phases} == time.phases
    assert [found[f"steps: {name}"] for name in time.spread] == list(time.spread.values())
    assert found["tokens"] == time.tokens_per_second


def test_a_prediction_has_no_spread(record: RecordFactory) -> None:
    (table,) = times.steps(arrange([record()]))
    assert not [column for column in table.columns if column.label.startswith("steps")]


def test_cells_without_a_time_have_none_in_the_page(cpu: RecordFactory) -> None:
    assert times.steps(arrange([cpu("sim:cpu")])) == []
    assert 'id="time"' not in render([cpu("sim:cpu")], title="t")


def test_the_heaviest_ops_come_first_and_the_rest_is_summed(cpu: RecordFactory) -> None:
    record = cpu("cpu")
    assert record.time
    record.time.kernels.reverse()
    (cell,) = arrange([record])
    table = times.ops(cell)
    (group,) = table.groups
    *heaviest, rest = group.rows
    labels = [column.label for column in table.columns]
    ranked = sorted(record.time.kernels, key=lambda kernel: -kernel.seconds)
    assert [row[0].text for row in heaviest] == [kernel.name for kernel in ranked[: times.OPS]]
    assert rest[0].text == f"{len(ranked) - times.OPS} others"
    for label, key in (("time", "seconds"), ("count", "count"), ("FLOPs", "flops")):
        shown = [row[labels.index(label)].exact or 0 for row in group.rows]
        expected = sum(getattr(kernel, key) for kernel in ranked)
        assert sum(shown) == pytest.approx(expected)
    shares = [float(row[labels.index("share")].text) for row in group.rows]
    assert sum(shares) == pytest.approx(100, abs=0.1)
    assert all(len(row) == len(labels) for row in group.rows)


def test_what_is_outside_of_kernels_has_a_row_and_a_share(cpu: RecordFactory) -> None:
    record = cpu("cpu")
    assert record.time
    kernels = sum(kernel.seconds for kernel in record.time.kernels)
    record.time.outside_kernels = {"forward": kernels, "backward": 2 * kernels}
    (cell,) = arrange([record])
    table = times.ops(cell)
    (group,) = table.groups
    labels = [column.label for column in table.columns]
    last = group.rows[-1]
    assert len(last) == len(labels)
    assert last[0].text == "outside kernels"
    assert last[labels.index("time")].exact == pytest.approx(3 * kernels)
    assert last[labels.index("share")].text == "75.00"


def test_utilisation_is_shown_where_a_peak_is_known(
    cpu: RecordFactory, record: RecordFactory
) -> None:
    predicted = record()
    assert predicted.time
    predicted.time.mfu = 0.345
    tables = {table.source: table for table in times.steps(arrange([cpu("cpu"), predicted]))}
    labels = [column.label for column in tables["predicted"].columns]
    (row,) = tables["predicted"].groups[0].rows
    shown = row[labels.index("model FLOPs utilisation")]
    assert (shown.text, shown.exact) == ("34.50", 0.345)
    assert "model FLOPs utilisation" not in [one.label for one in tables["measured"].columns]


def test_a_kernel_and_its_op_are_named_once_if_they_are_one(cpu: RecordFactory) -> None:
    record = cpu("cpu")
    assert record.time
    for kernel in record.time.kernels:
        kernel.name = kernel.op.replace(".", "::")
    (cell,) = arrange([record])
    assert [column.label for column in times.ops(cell).columns].count("op") == 1


def test_bars_are_the_phases_seconds(cpu: RecordFactory) -> None:
    cells = arrange([cpu("cpu"), cpu("cpu", "full")])
    drawing = figures.durations(cells)
    (axes,) = drawing.figure.axes
    assert axes.get_xlabel() == "ms"
    for row, cell in enumerate(cells):
        start = 0.0
        for name, bars in zip(figures.timed_phases_of(cells), axes.containers, strict=True):
            bar = list(bars)[row]
            assert bar.get_x() / 1e3 == pytest.approx(start)
            assert bar.get_width() / 1e3 == pytest.approx(times.time_of(cell).phases[name])
            start += bar.get_width() / 1e3
    assert "measured" in drawing.label
