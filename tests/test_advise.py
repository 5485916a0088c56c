"""`python -m profiler.advise` from end to end, on a model of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import write

from profiler.advise import main
from profiler.execute import run
from profiler.spec import RunSpec
from profiler.store import Store


def test_what_it_says_fits_and_the_next_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path)["llama"]
    flags = ["--model", model, "--device", "t4", "--vram", "175MiB", "--seq-len", "64"]
    more = ["--methods", "lora", "full", "bitfit", "--workers", "1", "--format", "json", "--quiet"]
    assert main([*flags, *more, "--output", str(tmp_path / "kept")]) == 0
    out, err = capsys.readouterr()
    rows = {row["method"]: row for row in json.loads(out)}
    assert rows["bitfit"]["status"] == "unsupported"
    for method in ("lora", "full"):
        row = rows[method]
        assert row["status"] == "fits"
        spec = RunSpec.from_dict({**row["spec"], "model_override": ()})
        assert run(spec).status == "ok"
        assert run(spec.replace(batch_size=row["batch_size"] + 1)).status == "oom"
    assert len(Store(tmp_path / "kept").all()) > 4
    assert err.count("\n") <= 2


def test_a_person_reads_a_table_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path)["opt"]
    flags = ["--model", model, "--device", "t4", "--methods", "lora", "--workers", "1"]
    assert main([*flags, "--seq-len", "64", "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    assert "2+" in out
    assert "As it is, 1 of 1 fit." in out
    assert "profiler.advise: [1/1] lora: fits" in err
    assert main([*flags, "--seq-len", "64", "--vram", "142MiB", "--quiet"]) == 1
    assert "Nothing fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--device", "rtx-4091"], "unknown device 'rtx-4091'"),
        (["--device", "cpu"], "cannot be advised on"),
        (["--device", "t4", "--vram", "lots"], "--vram must be a size"),
        (["--device", "t4", "--vram", "40GiB"], "t4 has 14.57 GiB"),
        (["--device", "t4", "--batch-size", "2"], "use --find length"),
        (["--device", "t4", "--find", "length", "--seq-len", "2"], "use --find batch"),
        (["--device", "t4", "--methods", "lorra"], "unknown method 'lorra'"),
        (["--device", "t4", "--limit", "0"], "--limit must be at least 1"),
        (["--device", "t4", "--stack", "mine"], "unknown value for --stack"),
        (["--device", "t4", "--seq-len", "0"], "--seq-len must be at least 1"),
        ([], "name a model and a card"),
    ],
)
def test_wrong_usage_is_one_line(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "opt-125m", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_several_cards_and_both_searches_make_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path)["llama"]
    flags = ["--model", model, "--device", "t4", "--device", "rtx-3060", "--vram", "165MiB"]
    more = ["--find", "both", "--methods", "lora", "--workers", "1", "--format", "json", "--quiet"]
    assert main([*flags, *more, "--seq-len", "64", "--output", str(tmp_path / "kept")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["spec"]["device"], row["find"]) for row in rows] == [
        ("t4", "batch"), ("t4", "length"), ("rtx-3060", "batch"), ("rtx-3060", "length"),
    ]  # fmt: skip
    assert all(row["seq_len"] == 64 for row in rows if row["find"] == "batch")
    assert all(row["batch_size"] == 1 for row in rows if row["find"] == "length")
    assert (tmp_path / "kept" / "index.html").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--device", "t4"], "name a model and a card"),
        (["--render"], "--render needs --output"),
        (["--model", "m", "--device", "t4", "--find", "both", "--limit", "3"], "--limit is of"),
    ],
)
def test_wrong_questions_are_one_line(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.whole_grid
@pytest.mark.parametrize(
    ("model", "card", "method"),
    [
        ("opt-1.3b", "t4", "lora"),
        ("qwen2.5-1.5b", "rtx-3060", "qlora"),
        ("llama-3.2-1b", "l4", "dora"),
        ("gpt2-xl", "rtx-4090", "ia3"),
        ("bloom-560m", "v100-16gb", "bitfit"),
        ("smollm2-1.7b", "a100-40gb", "full"),
    ],
)
def test_real_cards_hold_the_batch_and_not_the_next(
    model: str, card: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", model, "--device", card, "--methods", method, "--seq-len", "512"]
    assert main([*flags, "--workers", "1", "--format", "json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    spec = RunSpec.from_dict({**row["spec"], "model_override": ()})
    assert run(spec).status == "ok"
    assert run(spec.replace(batch_size=row["batch_size"] + 1)).status == "oom"
