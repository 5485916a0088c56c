"""The page of advice: what the answers hold, by card and method, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_scripts import without_scripts

from profiler.advise import main
from profiler.advisor import page, results
from profiler.advisor.advice import Advice, Find
from profiler.advisor.results import Answer, Results
from profiler.errors import StoreError

HOSTILE = "</script><script>window.hacked=1</script><img src=x>"


def advice(method: str, number: int, find: Find, **changes: Any) -> Advice:
    size = {"batch_size": number, "seq_len": 2048} if find == "batch" else {"seq_len": number}
    return Advice(
        **{
            "method": method,
            "status": "fits" if number else "too large",
            "batch_size": 1,
            "seq_len": 2048,
            "needed": 2**30,
            "capacity": 2**31,
            "beyond": 2**31 + 512,
            "tokens_per_second": 100.0,
            "spec": {},
            **size,
            **changes,
        }
    )


@pytest.fixture
def found() -> Results:
    return Results(
        model="llama-3.1-8b",
        command="python -m profiler.advise",
        answers=[
            Answer(device=device, find=find, advice=advice(method, number * scale, find, **more))
            for device, scale in (("t4", 1), ("h100", 4))
            for find in ("batch", "length")
            for method, number, more in (
                ("lora", 2 if find == "batch" else 4096, {}),
                ("qlora", 3 if find == "batch" else 8192, {"change": "checkpointing"}),
                ("full", 0, {}),
            )
        ],
        approximations=["no cuDNN"],
        environment={"torch": "2.13.0", "cpu_features": ["avx2"]},
    )


def squares(html: str) -> list[dict[str, Any]]:
    return [
        row
        for data in re.findall(r'<script type="application/json">(.*?)</script>', html)
        for rows in json.loads(data)["datasets"].values()
        for row in rows
    ]


def test_each_square_is_an_answer(found: Results) -> None:
    drawn = squares(page.render(found))
    assert len(drawn) == len(found.answers) == 12
    shown = {(row["card"], row["method"]): row["text"] for row in drawn if row["number"] < 100}
    assert shown[("t4", "lora")] == "2"
    assert shown[("h100", "qlora")] == "12 c"
    assert shown[("t4", "full")] == "–"


def test_the_tables_hold_the_same(found: Results) -> None:
    html = without_scripts(page.render(found))
    assert html.count("with checkpointing") >= 4
    assert f'data-bytes="{2**31 + 512}"' in html
    assert "no cuDNN" in html
    assert html.count("<caption>") == 5  # four of answers, one of the environment


def test_what_is_kept_is_drawn_again(
    found: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results.write(found, tmp_path)
    first = page.build(found, tmp_path).read_bytes()
    assert main(["--render", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "index.html").read_bytes() == first
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 9}', '{"schema": 1, "model": 3}'])
def test_what_is_no_advice_is_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / results.NAME).write_text(text)
    with pytest.raises(StoreError):
        results.read(tmp_path / results.NAME)
    assert main(["--render", "--output", str(tmp_path)]) != 0
    assert capsys.readouterr().err.count("\n") == 1


def test_hostile_names_are_text(found: Results) -> None:
    wild = found.model_copy(
        update={
            "model": HOSTILE,
            "command": HOSTILE,
            "approximations": [HOSTILE],
            "environment": {HOSTILE: HOSTILE},
            "answers": [
                Answer(
                    device=HOSTILE,
                    find="batch",
                    advice=advice(HOSTILE, 3, "batch", change=HOSTILE, reason=HOSTILE),
                )
            ],
        }
    )
    rest = without_scripts(page.render(wild))
    assert "<script" not in rest
    assert "<img" not in rest
