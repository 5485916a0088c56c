"""The interactive charts' data: what the records hold, and what a reader's browser computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.record import Record
from profiler.report import interactive, modules_chart, roofline_chart, scores, timeline, tradeoff
from profiler.report.cells import Cell, arrange

RecordFactory = Callable[..., Record]


@pytest.fixture(scope="module")
def cells(study: list[Record], charted: Callable[[Record], Record]) -> list[Cell]:
    return arrange([charted(one) for one in study[:4]])


def datasets(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of a chart's data."""
    return [row for rows in spec["datasets"].values() for row in rows]


def test_the_timeline_has_the_records_points_and_its_peak(cells: list[Cell]) -> None:
    chart = timeline.chart(cells)
    assert chart is not None
    rows = {row["cell"]: row for row in datasets(chart.spec) if "c0" in row}
    assert list(rows) == [cell.short for cell in cells]
    for cell in cells:
        source, row = cell.memory.timeline, rows[cell.short]
        assert source is not None
        assert row["event"] == [event - source.event[0] for event in source.event]
        columns = [value for key, value in row.items() if key.startswith("c") and key != "cell"]
        held = [sum(parts) for parts in zip(*columns, strict=True)]
        assert held == [sum(parts) for parts in zip(*source.allocated.values(), strict=True)]
        assert max(held) == cell.memory.peak_allocated


@given(count=st.integers(1, 5000), must=st.sets(st.integers(0, 4999), max_size=5))
def test_thinned_points_are_few_and_keep_what_they_must(count: int, must: set[int]) -> None:
    must = {place for place in must if place < count}
    kept = timeline._kept(count, must)
    assert must <= set(kept) <= set(range(count))
    assert kept == sorted(set(kept))
    assert len(kept) <= timeline.POINTS + len(must)


def test_an_icicles_boxes_tile_what_the_modules_hold(cells: list[Cell]) -> None:
    modules = cells[0].memory.modules
    boxes = modules_chart.rectangles(modules, ["parameters", "activations"])
    whole = sum(sum(parts.values()) for parts in modules.values())
    assert boxes[0] | {"depth": 0} == boxes[0]
    assert (boxes[0]["start"], boxes[0]["end"]) == (0, whole)
    by_depth: dict[int, list[dict[str, Any]]] = {}
    for box in boxes:
        by_depth.setdefault(box["depth"], []).append(box)
    for depth, row in by_depth.items():
        ordered = sorted(row, key=lambda box: box["start"])
        for one, other in pairwise(ordered):
            assert one["end"] <= other["start"]
        if depth:
            above = by_depth[depth - 1]
            for box in row:
                assert any(
                    outer["start"] <= box["start"] and box["end"] <= outer["end"] for outer in above
                )
    (fc1,) = [box for box in boxes if box["path"] == "model.decoder.layers.*.fc1"]
    assert fc1["end"] - fc1["start"] == 4 * (4096 * 16384 * 2 + 2 * 2**20)


def test_the_rooflines_points_are_the_kernels(cells: list[Cell]) -> None:
    chart = roofline_chart.chart(cells)
    assert chart is not None
    rows = [row for row in datasets(chart.spec) if row.get("cell") == cells[0].short]
    points = {row["kernel"]: row for row in rows if "kernel" in row}
    assert cells[0].record.time is not None
    for kernel in cells[0].record.time.kernels:
        point = points[kernel.name]
        assert point["rate"] == pytest.approx(kernel.flops / kernel.seconds)
        assert point["intensity"] == pytest.approx(kernel.intensity)
    peaks = {row["roof"]: row["rate"] for row in rows if row.get("last")}
    assert peaks == {
        "bfloat16, tensor cores: 165 TFLOP/s": pytest.approx(165.2e12),
        "float32: 83 TFLOP/s": pytest.approx(82.6e12, rel=1e-3),
    }


def test_the_ranking_starts_at_the_formulas_values(record: RecordFactory) -> None:
    cells = arrange(record(method, "a100-80gb", model="gpt2-xl") for method in ("ia3", "bitfit"))
    scored = scores.of_cells(cells)
    points = tradeoff.points(cells, scored)
    assert all(one.latency is not None and one.latency < 1.1 for one in points)  # the source's
    (table,) = tradeoff.tables(points)
    rows = {row[0].text: row for row in table.groups[0].rows}
    usual = tradeoff.constants(points)
    for point, (exponential, product) in zip(points, tradeoff.pscp(points, usual), strict=True):
        row = rows[point.cell.short]
        assert row[1].exact == point.score
        assert (row[3].exact, row[5].exact) == (exponential, product)
    chart = tradeoff.ranking(points, scored)
    assert chart is not None
    shown = {row["name"]: row for row in datasets(chart.spec) if "score" in row}
    assert {name: row["memory"] for name, row in shown.items()} == {
        point.cell.short: point.memory for point in points
    }


def test_without_a_score_there_is_no_ranking_and_still_a_trade_off(cells: list[Cell]) -> None:
    points = tradeoff.points(cells, None)
    assert tradeoff.ranking(points, None) is None
    assert tradeoff.tables(points) == []
    assert tradeoff.pareto(points) is not None
    assert tradeoff.pareto(points[:1]) is None


@given(st.text() | st.sampled_from(["</script><script>", "<!--", "]]>", "\u2028"]))
def test_json_in_a_script_ends_nothing(text: str) -> None:
    written = interactive.script_json({"a": text})
    assert json.loads(written) == {"a": text}
    assert not set(written) & set("<>&\u2028\u2029")
