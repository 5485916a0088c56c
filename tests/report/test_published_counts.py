"""Published parameter counts beside ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from profiler.record import Params, Record
from profiler.report.cells import arrange
from profiler.report.published import PublishedTable, compare
from profiler.report.tables import Table

RecordFactory = Callable[..., Record]


@pytest.fixture
def published() -> PublishedTable:
    return PublishedTable.model_validate(
        {
            "title": "Small",
            "source": "A source.",
            "model": "opt-6.7b",
            "rows": [
                {"method": "IA3", "match": {"method.preset": "ia3"}, "parameters": [10, 1000]},
                {"method": "full", "match": {"method.preset": "full"}, "parameters": [990, 990]},
            ],
        }
    )


def counted(record: Record, trainable: int, total: int) -> Record:
    record.params = Params(trainable=trainable, total=total, trainable_fraction=trainable / total)
    return record


def only(records: list[Record], published: PublishedTable) -> Table:
    (comparison,) = compare(arrange(records), [published])
    return comparison.table


def test_equal_counts_agree_to_the_unit(record: RecordFactory, published: PublishedTable) -> None:
    table = only([counted(record("ia3"), 10, 1000)], published)
    theirs, ours = table.groups[0].rows
    assert [theirs[1].exact, theirs[3].exact] == [ours[1].exact, ours[3].exact] == [10, 1000]
    assert ours[4].text == "✓ both"


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((11, 1000), "✗ +1 trainable"),
        ((10, 990), "✗ −10 in all"),
        ((9, 2000), "✗ −1 trainable, +1,000 in all"),
    ],
)
def test_one_unit_apart_is_no_agreement(
    record: RecordFactory, published: PublishedTable, counts: tuple[int, int], text: str
) -> None:
    table = only([counted(record("ia3"), *counts)], published)
    assert table.groups[0].rows[1][4].text == text


def test_a_row_without_a_run_says_so(record: RecordFactory, published: PublishedTable) -> None:
    table = only([counted(record("ia3"), 10, 1000)], published)
    assert "no run" in table.groups[1].rows[1][0].text
    for group in table.groups:
        assert {len(row) for row in group.rows} == {len(table.columns)}


def test_a_method_on_several_cards_is_one_row(
    record: RecordFactory, published: PublishedTable
) -> None:
    records = [counted(record("ia3", card), 10, 1000) for card in ("l40s", "rtx-4090")]
    assert len(only(records, published).groups[0].rows) == 2


def test_another_size_of_the_model_is_another_model(
    record: RecordFactory, published: PublishedTable
) -> None:
    other = counted(record("ia3"), 10, 1000)
    other.spec["model_override"] = ["hidden_size=64"]
    assert compare(arrange([other]), [published]) == []
