"""Flat tables: the record's own figures, exact, in CSV and in Parquet."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import UsageError
from profiler.export import csv as csv_format
from profiler.export import flat, parquet
from profiler.record import Record
from profiler.trace import Trace

pyarrow = pytest.importorskip("pyarrow")


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def read_parquet(data: bytes) -> list[dict[str, Any]]:
    from pyarrow import parquet as reader

    rows = reader.read_table(io.BytesIO(data)).to_pylist()
    assert isinstance(rows, list)
    return rows


def bare(**changes: Any) -> Record:
    values = {"id": "x", "status": "ok", "source": "simulated", "spec": {"model": "tiny"}}
    return Record.from_dict({"schema": 1, **values, **changes})


def test_a_row_is_a_record(records: list[Record]) -> None:
    rows = read_csv(csv_format.render(records))
    assert [row["id"] for row in rows] == [record.id for record in records]
    for row, record in zip(rows, records, strict=True):
        assert row["source"] == record.source
        assert row["memory.peak_allocated"] == str(record.memory.peak_allocated)
        assert record.flops is not None
        assert row["flops.phases.backward"] == str(record.flops.phases["backward"])
        assert row["spec.batch_size"] == str(record.spec["batch_size"])
        at_peak = {
            name.rpartition(".")[2]: int(value)
            for name, value in row.items()
            if name.startswith("memory.at_peak.")
        }
        assert at_peak == record.memory.at_peak


def test_a_run_of_many_lengths_has_its_history(lengths: tuple[Record, Trace]) -> None:
    record, _ = lengths
    assert record.memory.history is not None
    (row,) = flat.rows([record], "cells", ["memory.history.*"])
    assert row["memory.history.peak_step"] == record.memory.history.peak_step
    assert "memory.history.series" not in " ".join(row)


def test_modules_sum_to_the_record(records: list[Record]) -> None:
    for record in records:
        rows = flat.rows([record], "modules")
        assert {row["module"] for row in rows} == set(record.memory.modules)
        assert sum(row["activations"] for row in rows) == record.memory.at_peak["activations"]


def test_holders_name_what_is_alive_and_who_asked(records: list[Record]) -> None:
    for record in records:
        rows = flat.rows([record], "holders")
        assert {row["source"] for row in rows} == {record.source}
        assert any(":" in row["source_line"] for row in rows)
        held = record.memory.holders or record.memory.largest_at_peak
        assert [row["bytes"] for row in rows] == [one.bytes for one in held]


def test_an_older_record_has_its_largest_blocks(records: list[Record]) -> None:
    older = records[0].model_copy(deep=True)
    older.memory.holders = []
    rows = flat.rows([older], "holders")
    assert [row["bytes"] for row in rows] == [one.bytes for one in older.memory.largest_at_peak]


def test_the_timeline_keeps_the_peak(records: list[Record]) -> None:
    for record in records:
        rows = flat.rows([record], "timeline")
        assert max(row["allocated"] for row in rows) == record.memory.peak_allocated
        for row in rows:
            parts = [row[name] or 0 for name in row if name.startswith("allocated.")]
            assert sum(parts) == row["allocated"]


def test_kernels_sum_to_the_time(records: list[Record]) -> None:
    for record in records:
        if record.time is None:
            continue
        rows = flat.rows([record], "kernels")
        outside = sum(record.time.outside_kernels.values())
        kernels = sum(row["seconds"] for row in rows)
        assert kernels + outside == pytest.approx(record.time.step)
        assert {row["time.source"] for row in rows} == {record.time.source}


@pytest.mark.parametrize("table", flat.TABLES)
def test_both_formats_hold_the_same(records: list[Record], table: str) -> None:
    expected = flat.rows(records, table)
    texts = [{name: "" if value is None else str(value) for name, value in row.items()}
             for row in expected]  # fmt: skip
    assert read_csv(csv_format.render(records, table)) == texts
    assert read_parquet(parquet.render(records, table)) == expected


def test_columns_are_chosen_by_name_and_by_pattern(records: list[Record]) -> None:
    (row, *_) = flat.rows(records, "cells", ["memory.at_peak.*", "id", "memory.peak_allocated"])
    names = list(row)
    assert names[-2:] == ["id", "memory.peak_allocated"]
    assert all(name.startswith("memory.at_peak.") for name in names[:-2])
    with pytest.raises(UsageError, match=r"did you mean memory\.peak_allocated"):
        flat.rows(records, "cells", ["memory.peak_alocated"])
    with pytest.raises(UsageError, match="no column matches 'nothing"):
        flat.rows(records, "cells", ["nothing.*"])


def test_a_table_that_no_record_has_is_an_error() -> None:
    with pytest.raises(UsageError, match="no record has kernels"):
        flat.rows([bare()], "kernels")


def test_integers_stay_exact_where_records_lack_them() -> None:
    large = 2**53 + 1
    memory = {"peak_allocated": large}
    rows = read_parquet(parquet.render([bare(memory=memory), bare(id="y")]))
    assert [row["memory.peak_allocated"] for row in rows] == [large, None]


def test_a_column_of_several_kinds_is_text() -> None:
    values = (1, "x", True, 2**70, [1, 2])
    records = [bare(spec={"odd": value}) for value in values]
    rows = read_parquet(parquet.render(records))
    assert [row["spec.odd"] for row in rows] == ["1", "x", "true", str(2**70), "[1, 2]"]
    whole = [bare(spec={"large": value}) for value in (1, 2**70)]
    assert [row["spec.large"] for row in read_parquet(parquet.render(whole))] == ["1", str(2**70)]


def test_without_pyarrow_one_line_names_what_to_install(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'peft-profiler\[parquet\]'"):
        parquet.render(records)


@given(text=st.text())
def test_no_text_is_a_formula(text: str) -> None:
    (row,) = read_csv(csv_format.render([bare(spec={"model": text})]))
    value = row["spec.model"]
    assert not value.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert value in (text, "'" + text)


def test_negative_numbers_are_left_alone() -> None:
    record = bare(fits={"capacity": 1, "headroom": -5})
    (row,) = read_csv(csv_format.render([record]))
    assert row["fits.headroom"] == "-5"


@given(text=st.text(st.characters()))
def test_any_text_survives_parquet(text: str) -> None:
    (row,) = read_parquet(parquet.render([bare(spec={"model": text})]))
    assert row["spec.model"] == text.encode("utf-8", "backslashreplace").decode()


def test_pandas_reads_it_with_its_types(records: list[Record], tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "cells.parquet"
    path.write_bytes(parquet.render(records))
    frame = pandas.read_parquet(path)
    assert frame["memory.peak_allocated"].dtype == "int64"
    assert frame["memory.peak_allocated"].tolist() == [
        record.memory.peak_allocated for record in records
    ]
