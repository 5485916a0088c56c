"""The study of BLOOM-1.4B zh runs what was published, and the published figures hang together."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from profiler import studies
from profiler.report.published import PublishedRow, PublishedTable, load
from profiler.resolve import resolve

HIDDEN, LAYERS, WORDS = 2048, 24, 46145
PARAMETERS = 1_303_111_680

TABLES = [table for table in load() if table.model == "bloom-1b4-zh"]
ROWS = [(table, row) for table in TABLES for row in table.rows]


@functools.cache
def specs() -> list[dict[str, Any]]:
    """The study's cells, resolved."""
    return [resolve(spec).record_spec for spec in studies.load("bloom_1b4").cells]


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[row.method for _, row in ROWS])
def test_each_published_row_is_one_cell(table: PublishedTable, row: PublishedRow) -> None:
    found = [spec for spec in specs() if row.matches(spec)]
    assert len(found) == 1
    assert found[0]["model"] == table.model
    assert not found[0]["model_override"]


def test_every_cell_is_in_32_bits_on_one_batch() -> None:
    for name in ("weights_dtype", "adapter_dtype", "batch_size", "seq_len", "device"):
        assert len({spec[name] for spec in specs()}) == 1
    assert specs()[0]["weights_dtype"] == "float32"


def test_the_encoder_without_a_published_count_runs_too() -> None:
    kinds = [
        spec["method"]["config"]["encoder_reparameterization_type"]
        for spec in specs()
        if spec["method"]["preset"] == "p-tuning"
    ]
    assert sorted(kinds) == ["LSTM", "MLP"]


def test_the_published_sum_is_four_bytes_a_parameter() -> None:
    (row,) = [row for _, row in ROWS if row.terms]
    assert row.memory_gb == pytest.approx(sum(term.gb for term in row.terms))
    for term, numbers in zip(row.terms, (1, 1, 2), strict=True):
        assert term.gb == pytest.approx(numbers * 4 * PARAMETERS / 1e9, abs=0.05)


def test_the_notes_arithmetic_holds() -> None:
    notes = {row.method: row.note for _, row in ROWS}
    counts = {row.method: row.parameters for _, row in ROWS}
    (lora,) = [name for name in notes if name.startswith("LoRA")]
    regex = re.compile(r".*\.1.*query_key_value")
    taken = [
        layer
        for layer in range(LAYERS)
        if regex.fullmatch(f"transformer.h.{layer}.self_attention.query_key_value")
    ]
    assert taken == [1, *range(10, 20)]
    adapters = len(taken) * 8 * (HIDDEN + 3 * HIDDEN)
    assert f"{adapters:,} parameters" in notes[lora]
    assert f"{WORDS * HIDDEN:,} are the copy" in notes[lora]
    assert counts[lora] == (adapters + WORDS * HIDDEN, PARAMETERS + adapters + WORDS * HIDDEN)
    (prefix,) = [name for name in notes if "projected" in name]
    width = 2 * LAYERS * HIDDEN
    assert f"2048 × {width:,}" in notes[prefix]
    published = counts[prefix]
    assert published
    assert HIDDEN * width > 0.9 * published[0]
