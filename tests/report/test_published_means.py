"""A published table of means: ours are the means over the models that have a result."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from profiler.record import Record
from profiler.report import published
from profiler.report.cells import arrange
from profiler.report.units import GB

RecordFactory = Callable[..., Record]


def test_a_rows_mean_is_over_its_models(record: RecordFactory) -> None:
    made = [
        record("ia3", "a100-80gb", model="gpt2-xl", batch_size=1),
        record("ia3", "a100-80gb", model="llama-2-7b", batch_size=1, seq_len=256),
        record("ia3", "a100-80gb", model="llama-2-7b", batch_size=1),
        record("bitfit", "a100-80gb", model="gpt2-xl", batch_size=1),
        record("ia3", "a100-80gb", batch_size=1),  # a model that the table is not of
    ]
    cells = arrange(made)
    tables = [one for one in published.load() if one.models]
    (found,) = published.compare(cells, tables)
    rows = {group.heading: group.rows for group in found.table.groups}
    peaks = [made[0].memory.peak_reserved or 0, made[2].memory.peak_reserved or 0]
    theirs, *ours = rows["IA3"]
    assert theirs[2].exact == 12.8
    assert [row[1].exact for row in ours] == [2, 1]
    assert ours[0][2].exact == pytest.approx(sum(peaks) / 2)
    share = sum(peaks) / 2 / GB / 12.8 - 1
    assert ours[0][3].text.strip("+ %−") == f"{abs(100 * share):.0f}"
    assert len(rows["BitFit"]) == 2
    assert len(rows["LoRA"]) == 1
