"""Scores of methods: shipped ones match their study's cells, a user's are read with care."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import UsageError
from profiler.record import Record
from profiler.report import scores
from profiler.report.cells import arrange

RecordFactory = Callable[..., Record]


def test_shipped_scores_name_their_source() -> None:
    tables = scores.load()
    assert {"MetaMathQA, thirty methods", "PEFT-Bench"} <= {table.title for table in tables}
    for table in tables:
        assert table.source
        assert table.rows
        assert len({row.method for row in table.rows}) == len(table.rows)


def test_a_cell_has_the_score_of_its_method_and_model(record: RecordFactory) -> None:
    cells = arrange(
        record(method, "a100-80gb", model=model)
        for model in ("gpt2-xl", "opt-6.7b")
        for method in ("ia3", "bitfit", "full")
    )
    found = scores.of_cells(cells)
    assert found is not None
    assert found.table.title == "PEFT-Bench"
    by_cell = {cell.key: cell for cell in cells}
    got = {(by_cell[key].model, by_cell[key].short): row.score for key, row in found.rows.items()}
    assert got == {("gpt2-xl", "ia3"): 81.9, ("gpt2-xl", "bitfit"): 75.3}


def test_a_users_scores(record: RecordFactory, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("method,score,model\nlora:r=64,50,\nlora,40,\nia3,30,opt-6.7b\nfull,60,other\n")
    methods = ("lora:r=64", "lora:r=8,target_modules=q_proj+v_proj", "ia3", "full")
    cells = arrange(record(method) for method in methods)
    found = scores.of_cells(cells, scores.read(path))
    assert found is not None
    got = {cell.name: found.rows[cell.key].score for cell in cells if cell.key in found.rows}
    assert got == {"lora:r=64": 50, "lora:r=8,target_modules=q_proj+v_proj": 40, "ia3": 30}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns method and score"),
        ("method,points\nlora,1\n", "columns method and score"),
        ("method,score\n", "no line below the first"),
        ("method,score\nlora,high\n", "line 2: score must be a number"),
        ("method,score\nlora,nan\n", "line 2: score must be a number"),
        ("method,score\nlora,1\nia3,-2\n", "line 3: score must be a number"),
        ("method,score\nlora\n", "line 2: it has not as many columns"),
        ("method,score\nlora,1,2\n", "line 2: it has not as many columns"),
        ("method,score\n ,1\n", "line 2: no method"),
        ('method,score\n"lora,1\n', "scores.csv"),
        ("method,score,latency\nlora,1,slow\n", "line 2: latency must be a number"),
    ],
)
def test_a_wrong_file_is_told_by_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        scores.read(path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_text_and_no_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes.csv", "none.csv", ".", "a\0b"):
        with pytest.raises(UsageError):
            scores.read(tmp_path / name)


def test_published_scores_of_the_thirty_methods_are_all_matched() -> None:
    from profiler.validation import cases

    (table,) = (one for one in scores.load() if one.title == "MetaMathQA, thirty methods")
    names = {row.method for row in table.rows}
    ids: set[Any] = {case.id for case in cases.group("peft-metamathqa").cases}
    assert len(names) == len(ids) == 30
    assert ids - names == {"full-finetuning--llama-3.2-3B-lr_0.00001"}
