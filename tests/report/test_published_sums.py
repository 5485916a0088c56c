"""A published sum beside a record: every byte is in one of its rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from profiler.record import Record
from profiler.report.cells import arrange
from profiler.report.published import PublishedTable, compare
from profiler.report.tables import Rows

GB = 10**9
RecordFactory = Callable[..., Record]


@pytest.fixture
def published() -> PublishedTable:
    return PublishedTable.model_validate(
        {
            "title": "Sum",
            "source": "A source.",
            "model": "opt-6.7b",
            "rows": [
                {
                    "method": "full",
                    "match": {"method.preset": "full"},
                    "memory": "about 50 GB",
                    "memory_gb": 50,
                    "terms": [
                        {"what": "model", "gb": 12.0, "categories": ["base_parameters"]},
                        {"what": "Adam", "gb": 24.0, "categories": ["optimizer_state"]},
                    ],
                }
            ],
        }
    )


def rows(ours: Record, published: PublishedTable) -> Rows:
    comparisons = compare(arrange([ours]), [published])
    assert len(comparisons) == 2  # the table, and its sum
    (group,) = comparisons[1].table.groups
    return group


def test_the_rows_add_up_to_what_is_allocated_reserved_and_on_the_device(
    record: RecordFactory, published: PublishedTable
) -> None:
    ours = record("full", "a100-80gb")
    memory = ours.memory
    lines = {row[0].text: row[2].exact for row in rows(ours, published).rows}
    names = list(lines)
    parts = names[names.index("the sum") + 1 : names.index("allocated at the peak")]
    held = [lines[name] or 0 for name in ("model", "Adam", *parts)]
    assert sum(held) == lines["allocated at the peak"] == memory.peak_allocated
    assert lines["the sum"] == memory.at_peak["base_parameters"] + memory.at_peak["optimizer_state"]
    assert lines["on the device"] == memory.device_total
    assert "gradients" in parts


def test_the_differences_are_ours_less_theirs(
    record: RecordFactory, published: PublishedTable
) -> None:
    ours = record("full", "a100-80gb")
    first = rows(ours, published).rows[0]
    apart = ours.memory.at_peak["base_parameters"] / GB - 12
    assert first[1].exact == 12
    assert first[3].text.startswith(f"+{apart:.2f} (")


def test_the_words_name_what_the_sum_leaves_out(
    record: RecordFactory, published: PublishedTable
) -> None:
    ours = record("full", "a100-80gb")
    ours.memory.at_peak["activations"] = 0
    note = rows(ours, published).note
    assert f"{ours.memory.at_peak['gradients'] / GB:.2f} GB of gradients" in note
    assert "36.0 published" in note
    assert "next to nothing is left then of activations" in note


def test_the_largest_block_is_the_record_s(
    record: RecordFactory, published: PublishedTable
) -> None:
    ours = record("full", "a100-80gb")
    largest = max(ours.memory.largest_at_peak, key=lambda block: block.bytes)
    assert rows(ours, published).rows[0][5].text == f"{largest.op}, {largest.module}"


def test_a_run_of_another_method_has_no_sum(
    record: RecordFactory, published: PublishedTable
) -> None:
    assert compare(arrange([record("ia3")]), [published]) == []
