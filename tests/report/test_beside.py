"""Measured beside simulated: every number with where it comes from, and what is apart marked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from page_scripts import without_scripts

from profiler.record import Record
from profiler.report import beside, pair_figure, render
from profiler.report.cells import arrange
from profiler.report.pairs import Pair, pair
from profiler.report.tables import Table

MIB = 2**20
GIB = 2**30
RecordFactory = Callable[..., Record]


@pytest.fixture
def records(paired: list[Record]) -> list[Record]:
    """Three pairs, which a test may change."""
    return [record.model_copy(deep=True) for record in paired]


@pytest.fixture
def pairs(paired: list[Record]) -> list[Pair]:
    return pair(arrange(paired))


def rows(table: Table) -> dict[str, list[Any]]:
    return {row[0].text: row for group in table.groups for row in group.rows}


def test_the_overview_holds_both_peaks_and_their_difference(pairs: list[Pair]) -> None:
    (table,) = beside.overview(pairs)
    found = rows(table)
    assert len(found) == len(pairs) == 3
    sources = [column.source for column in table.columns]
    for one in pairs:
        row = found[one.measured.short]
        assert len(row) == len(table.columns)
        measured = row[sources.index("measured")].exact
        simulated = row[sources.index("simulated")].exact
        assert measured == one.measured.memory.peak_allocated
        assert simulated == one.simulated.memory.peak_allocated
        (difference,) = [
            field
            for field, column in zip(row, table.columns, strict=True)
            if column.label == "difference"
        ]
        assert difference.exact == simulated - measured


def test_what_is_apart_is_marked_with_a_sign(pairs: list[Pair]) -> None:
    (table,) = beside.overview(pairs)
    found = {name: row[1].text for name, row in rows(table).items()}
    assert found["full"] == "= equal"
    assert found["ia3"].startswith("✓")
    assert found["qlora"].startswith("▲")
    drawn = [text.get_text() for text in pair_figure.peaks(pairs).figure.axes[0].texts]
    assert sum("▲" in text for text in drawn) == 1
    assert "equal" in drawn


def test_every_phase_and_category_is_compared(pairs: list[Pair]) -> None:
    for one, details in zip(pairs, beside.details(pairs), strict=True):
        found = rows(details.table)
        memory = one.measured.memory
        for name, nbytes in memory.phases.items():
            assert found[name][1].exact == nbytes
            assert found[name][2].exact == one.simulated.memory.phases[name]
        assert found["after the step"][1].exact == memory.after_step_allocated
        (categories,) = [group for group in details.table.groups if "category" in group.heading]
        for column, cell in ((1, one.measured), (2, one.simulated)):
            total = sum(row[column].exact or 0 for row in categories.rows)
            assert total == cell.memory.peak_allocated


def test_the_summary_counts_what_the_tables_hold(pairs: list[Pair]) -> None:
    text = " ".join(beside.summary(pairs, [one.measured for one in pairs]))
    assert "3 cells" in text
    assert "1 equal to the byte, 1 within 1 % and 1 apart" in text
    assert f"+{200 * MIB:,} bytes" in text
    assert "qlora" in text


def test_a_cell_without_a_counterpart_is_named(records: list[Record], cpu: RecordFactory) -> None:
    cells = arrange([*records, cpu("cpu", "bitfit")])
    text = beside.summary(pair(cells), cells)[-1]
    assert "no simulation" in text
    assert "bitfit" in text
    assert "ia3" not in text


def test_a_refused_cell_stands_beside_what_it_would_need(cpu: RecordFactory) -> None:
    refused = cpu("cpu", status="refused", error="needs 30 GiB", memory={}, params=None)
    cells = arrange([refused, cpu("sim:cpu")])
    (table,) = beside.overview(pair(cells))
    (row,) = rows(table).values()
    assert row[1].text == "measured refused"
    assert row[1].tip == "needs 30 GiB"
    assert row[2].text == "–"
    assert row[3].exact == cells[0].memory.peak_allocated
    assert beside.summary(pair(cells), cells) == []


def test_other_versions_are_said(cpu: RecordFactory) -> None:
    other = cpu("sim:cpu")
    other.environment["torch"] = "2.14.0"
    (table,) = beside.overview(pair(arrange([cpu("cpu"), other])))
    assert "torch 2.13.0+cpu measured, 2.14.0 simulated" in table.groups[0].note


def test_bars_are_the_peaks_each_with_its_source(pairs: list[Pair]) -> None:
    drawing = pair_figure.peaks(pairs)
    (axes,) = drawing.figure.axes
    bars = {str(container.get_label()): list(container) for container in axes.containers}
    assert set(bars) == {"measured", "simulated"}
    for source, drawn in bars.items():
        cells = [getattr(one, source) for one in pairs]
        assert [bar.get_width() * GIB for bar in drawn] == [
            cell.memory.peak_allocated for cell in cells
        ]
        for bar in drawn:
            assert drawing.notes[str(bar.get_gid())].data["source"] == source
    # They differ in more than colour: the simulated ones are outlined only.
    measured, simulated = bars["measured"][0], bars["simulated"][0]
    assert measured.get_linestyle() != simulated.get_linestyle()
    assert measured.get_y() < simulated.get_y()


def test_what_a_process_held_is_measured_only(records: list[Record]) -> None:
    held = records[0]
    assert held.memory.process
    held.memory.process |= {"rss_explained": 19 * GIB, "cached": 5}
    peak = held.memory.peak_allocated
    assert peak
    held.allocator_peak = 2 * peak  # type: ignore[attr-defined]
    (table,) = beside.processes(arrange(records))
    assert table.source == "measured"
    found = rows(table)
    assert set(found) == {"full", "ia3", "qlora"}
    exact = [field.exact for field in found["full"]]
    sizes = [600 * MIB, 20 * GIB, 19 * GIB, 5, peak, 2 * peak]
    assert [size for size in exact if size] == sizes
    shares = [field.text for field in found["full"] if field.tip.endswith("%")]
    assert shares == ["−5.0", "−50"]
    assert all(len(row) == len(table.columns) for row in found.values())


def test_losses_are_shown_and_judged(cpu: RecordFactory) -> None:
    good, bad = cpu("cpu", "full"), cpu("cpu", "ia3")
    good.losses = [10.5, 10.25]  # type: ignore[attr-defined]
    bad.losses = [1.0, float("nan")]  # type: ignore[attr-defined]
    table = beside.processes(arrange([good, bad]))[-1]
    found = rows(table)
    assert found["full"][-1].text == "10.5, 10.25"
    assert found["full"][-2].text.startswith("✓")
    assert found["ia3"][-2].text.startswith("▲")
    assert beside.losses_of(arrange([cpu("cpu", "qlora")])[0]) == []


def test_the_page_says_which_is_which(records: list[Record], html: Any) -> None:
    source = render(records, title="Both")
    found = html(source)
    table = found.table("measured beside simulated")
    badges = [cell.text for cell in table.header if "peak" in cell.text]
    assert ["measured" in text for text in badges] == [True, False]
    assert ["simulated" in text for text in badges] == [False, True]
    (section,) = re.findall(r'<section id="beside".*?</section>\n<section id', source, re.DOTALL)
    (caption,) = re.findall(r"<figcaption>(.*?)</figcaption>", section, re.DOTALL)
    assert "measured" in caption
    assert "simulated" in caption
    # Elsewhere a table or figure is of one source.
    for other in found.tables:
        if "small" in other.caption and "simulated" in other.caption and other is not table:
            own = "measured on cpu, simulated as sim:cpu" in other.caption
            assert own or "measured" not in other.caption


def test_without_pairs_there_is_no_section(cpu: RecordFactory, html: Any) -> None:
    source = render([cpu("cpu")], title="t")
    assert 'id="beside"' not in source
    assert html(source).table("resident memory of the process").rows


def test_hostile_names_stay_text(records: list[Record], html: Any) -> None:
    wild = "</svg></table><script>hacked</script> {{ 7 * 7 }}"
    for record in records:
        record.spec["method"]["label"] += wild
        record.spec["model"] = wild
        if record.memory.process:
            record.memory.process[wild] = 1
        if record.time:
            record.time.phases[wild] = 1.0
            record.time.kernels[0].name = wild
    source = render(records, title="t")
    assert "<script" not in without_scripts(source)
    assert "{{ 7 * 7 }}" in source
    assert html(source).table("measured beside simulated").rows
