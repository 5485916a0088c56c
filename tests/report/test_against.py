"""Tables of differences: exact, signed, and adding up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from profiler.errors import UsageError
from profiler.record import Record
from profiler.report import render
from profiler.report.against import tables
from profiler.report.baseline import against
from profiler.report.cells import arrange
from profiler.report.tables import Field, Table

RecordFactory = Callable[..., Record]


def column(table: Table, label: str) -> list[Field]:
    """The fields below a header."""
    (place,) = [index for index, one in enumerate(table.columns) if one.label == label]
    return [row[place] for group in table.groups for row in group.rows]


@pytest.fixture
def records(record: RecordFactory) -> list[Record]:
    return [record(method) for method in ("lora:r=64", "full", "ia3", "qlora")]


def test_a_row_holds_the_exact_differences(records: list[Record]) -> None:
    comparisons = against(arrange(records), "lora:r=64")
    memory, phases = tables(comparisons)
    base, *others = [comparisons[0].base, *comparisons[0].others]
    lists = {
        "trainable": (memory, lambda record: record.params.trainable),
        "peak allocated": (memory, lambda record: record.memory.peak_allocated),
        "peak reserved": (memory, lambda record: record.memory.peak_reserved),
        "gradients": (memory, lambda record: record.memory.at_peak["gradients"]),
        "FLOPs": (phases, lambda record: record.flops.total),
        "FLOPs: backward": (phases, lambda record: record.flops.phases["backward"]),
        "step time": (phases, lambda record: record.time.step),
        "time: forward": (phases, lambda record: record.time.phases["forward"]),
        "peak: optimizer": (phases, lambda record: record.memory.phases["optimizer"]),
    }
    for label, (table, read) in lists.items():
        first, *rest = column(table, label)
        assert first.exact == read(base.record)
        assert [field.exact for field in rest] == [
            read(cell.record) - read(base.record) for cell in others
        ]
        for field in rest:
            assert field.exact is not None
            sign = {0: "0", 1: "+", -1: "−"}[(field.exact > 0) - (field.exact < 0)]
            assert field.text[0] == sign


def test_the_categories_add_up_to_the_peak_s_difference(records: list[Record]) -> None:
    memory, _ = tables(against(arrange(records), "lora:r=64"))
    parts = [index for index, one in enumerate(memory.columns) if one.swatch]
    total = column(memory, "peak allocated")
    rows = [row for group in memory.groups for row in group.rows]
    for row, field in zip(rows[1:], total[1:], strict=True):
        assert sum(row[index].exact or 0 for index in parts) == field.exact


def test_what_differs_nowhere_has_no_column(record: RecordFactory) -> None:
    memory, _ = tables(against(arrange([record("lora:r=64"), record("ia3")])))
    labels = [one.label for one in memory.columns]
    assert "buffers" not in labels
    assert "optimizer state" in labels


def test_every_row_is_as_wide_as_its_table(study: list[Record]) -> None:
    found = tables(against(arrange(study)))
    assert found
    for table in found:
        for group in table.groups:
            assert {len(row) for row in group.rows} == {len(table.columns)}


def test_what_is_nearly_all_is_not_written_as_all(record: RecordFactory) -> None:
    full, small = record("full"), record("prompt-tuning")
    memory, _ = tables(against(arrange([full, small]), "full"))
    assert "(−99." in column(memory, "trainable")[1].text or "(−<100 %)" in (
        column(memory, "trainable")[1].text
    )


def test_the_page_has_the_section_where_there_is_a_baseline(
    records: list[Record], html: Any
) -> None:
    source = render(records, title="t")
    assert 'id="against"' in source
    table = html(source).table("against a baseline: parameters")
    assert len([row for row in table.rows if len(row) > 1]) == len(records)
    assert 'id="against"' not in render(records[1:], title="t")
    assert 'id="against"' in render(records[1:], title="t", baseline="full")
    with pytest.raises(UsageError, match="baseline"):
        render(records, title="t", baseline="nothing")


def test_measured_and_simulated_stand_apart(cpu: RecordFactory) -> None:
    records = [
        cpu(device, method) for device in ("cpu", "sim:cpu") for method in ("full", "lora:r=64")
    ]
    found = tables(against(arrange(records)))
    assert {table.source for table in found} == {"measured", "simulated"}
    for table in found:
        assert len([row for group in table.groups for row in group.rows]) == 2
