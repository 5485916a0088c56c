"""The command: what it runs, prints, keeps and answers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny

import profiler
from profiler import validate
from profiler.record import Record
from profiler.spec import RunSpec
from profiler.store import Store
from profiler.validation import cases
from profiler.validation.metrics import metric
from profiler.validation.result import Validation


@dataclass
class Answer:
    code: int
    out: str
    err: str


def command(*arguments: str | Path) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = validate.main([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def validation(folder: Path) -> Validation:
    return Validation.from_json((folder / "validation.json").read_bytes())


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """One published run on a T4, really simulated."""
    folder = tmp_path_factory.mktemp("quick")
    return folder, command("--quick", "--workers", "1", "--output", folder)


def test_a_published_run_is_predicted(quick: tuple[Path, Answer]) -> None:
    folder, answer = quick
    found = validation(folder)
    group = cases.group("t4-qlora")
    (case,) = {figure.case for figure in found.figures}
    assert case == group.quick_cases[0]
    by_metric = {figure.metric: figure for figure in found.figures}
    for phase in ("forward", "backward", "optimizer"):
        figure = by_metric[f"phases.{phase}"]
        assert figure.measured == int(group.case(case).row[f"peak_{phase}_mib"]) * 2**20
        assert figure.error == pytest.approx(0, abs=0.01)
    assert by_metric["time.step"].verdict == "no claim"
    assert answer.code == (0 if found.passed else 1)


def test_the_table_names_what_is_simulated_and_what_is_measured(
    quick: tuple[Path, Answer],
) -> None:
    folder, answer = quick
    lines = answer.out.splitlines()
    assert lines[0].split() == [
        *("case", "metric", "simulated", "measured", "error", "bound", "verdict")
    ]
    for line, figure in zip(lines[2:], validation(folder).figures, strict=False):
        assert line.startswith(f"{figure.case}  {metric(figure.metric).label}  ")
        if figure.kind == "bytes":
            predicted, measured = (
                f" {number:,} " for number in (figure.predicted, figure.measured)
            )
            assert 0 < line.index(predicted) < line.index(measured, line.index(predicted) + 1)
    assert lines[-1] == f"page: {folder / 'index.html'}"
    assert "[1/1]" in answer.err


def test_what_is_stored_is_reused_in_every_format(quick: tuple[Path, Answer]) -> None:
    folder, first = quick
    (path,) = Store(folder).records.glob("*.json")
    written = path.stat().st_mtime_ns
    options = ("--quick", "--workers", "1", "--output", folder, "--quiet")
    answers = {name: command(*options, "--format", name) for name in validate.FORMATS}
    assert {answer.code for answer in answers.values()} == {first.code}
    assert list(Store(folder).records.glob("*.json")) == [path]
    assert path.stat().st_mtime_ns == written
    figures = validation(folder).figures
    assert Validation.from_json(answers["json"].out).figures == figures
    rows = list(csv.DictReader(io.StringIO(answers["csv"].out)))
    assert [(row["metric"], float(row["predicted"])) for row in rows] == [
        (figure.metric, figure.predicted) for figure in figures
    ]
    bars = [line for line in answers["markdown"].out.splitlines() if line.startswith("|")]
    assert len(bars) >= 2 * (len(figures) + 2)
    assert answers["table"].out.splitlines()[0] == first.out.splitlines()[0]


def test_another_bound_is_taken_and_what_exceeds_it_said(quick: tuple[Path, Answer]) -> None:
    folder, _ = quick
    answer = command(
        *("--quick", "--workers", "1", "--output", folder, "--quiet", "--fail-over", "0.0001%")
    )
    figures = validation(folder).figures
    assert {figure.bound for figure in figures if figure.bound is not None} == {0.0001 / 100}
    wrong = [figure for figure in figures if figure.verdict == "unexplained"]
    assert answer.code == (1 if wrong else 0)
    assert answer.err.count("not within its bound") == len(wrong)


def test_the_page_is_drawn_again_from_what_is_kept(quick: tuple[Path, Answer]) -> None:
    folder, _ = quick
    page = folder / "index.html"
    page.unlink()
    answer = command("--render", "--output", folder)
    assert answer.code == 0
    assert answer.out == f"{page}\n"
    assert "Simulated against measured" in page.read_text()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with one run, really measured on this CPU."""
    folder = tmp_path_factory.mktemp("measured")
    model = tiny.write(folder / "models")["llama"]
    spec = RunSpec(
        model=model, method="lora:r=4,target_modules=q_proj+v_proj", seq_len=24, device="cpu"
    )
    record = profiler.run(spec)
    assert record.status == "ok", record.error
    Store(folder).put(record)
    return folder


def test_a_measured_row_of_this_cpu_is_predicted_to_the_byte(
    measured: Path, tmp_path: Path
) -> None:
    answer = command("--rows", measured, "--workers", "1", "--output", tmp_path, "--quiet")
    assert answer.code == 0, answer.err
    found = validation(tmp_path)
    assert {figure.error for figure in found.figures} == {0.0}
    names = {figure.metric for figure in found.figures}
    assert {"peak_allocated", "phases.backward", "after_step_allocated"} <= names
    assert "time.step" not in names  # nothing predicts this CPU's
    (group,) = found.groups
    assert group.given
    assert "tiny-llama lora:r=4" in answer.out


def test_a_row_of_a_gpu_is_simulated_as_the_card_its_driver_names(
    measured: Path, tmp_path: Path
) -> None:
    (record,) = Store(measured).all()
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([on_card(record, "NVIDIA L40S").to_dict()]))
    answer = command("--rows", file, "--workers", "1", "--output", tmp_path, "--quiet")
    found = validation(tmp_path)
    (simulated,) = Store(tmp_path).all()
    assert simulated.spec["device"] == "l40s"
    assert simulated.spec["model_config"] == record.spec["model_config"]
    assert simulated.spec["method"]["config"] == record.spec["method"]["config"]
    # A CPU's bytes are not a card's.
    assert answer.code == 1
    assert not found.passed


def on_card(record: Record, name: str) -> Record:
    """The record as if it had been measured on a card."""
    return record.model_copy(
        update={
            "spec": {**record.spec, "device": "cuda"},
            "environment": {**record.environment, "device": name},
        }
    )


def test_rows_that_are_no_measured_results_are_refused_by_name(
    quick: tuple[Path, Answer], measured: Path, tmp_path: Path
) -> None:
    folder, _ = quick
    (simulated,) = Store(folder).all()
    answer = command("--rows", folder, "--output", tmp_path)
    assert answer.code == 2
    assert f"{simulated.id} is a simulated record" in answer.err
    (record,) = Store(measured).all()
    for changed, words in (
        (record.model_copy(update={"status": "oom"}), "has no result (oom)"),
        (on_card(record, "NVIDIA Nonesuch 9000"), "'NVIDIA Nonesuch 9000', which is not"),
        (
            record.model_copy(
                update={"spec": {**record.spec, "method": {"label": "x", "preset": "mine.py:Mine"}}}
            ),
            "a method of a file of its own",
        ),
    ):
        file = tmp_path / "row.json"
        file.write_text(changed.to_json())
        answer = command("--rows", file, "--output", tmp_path)
        assert answer.code == 2
        assert words in answer.err
        assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonesuch"], "unknown case 'nonesuch'"),
        (["--filter", "nonesuch"], "leaves no case"),
        (["--filter", "("], "--filter '('"),
        (["--fail-over", "3"], "a share such as 1% or 0.01"),
        (["--fail-over", "x%"], "a share such as 1% or 0.01"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--device", "l40s"], "give --rows"),
        (["--rows", "nonesuch.json"], "nonesuch.json"),
        (["--render", "--output", "nonesuch"], "no validation.json in nonesuch"),
        (["--scan", "nonesuch", "1:2:1"], "unknown group"),
        (["--scan", "peft-metamathqa", "1-2"], "FROM:TO:STEP"),
        (["--scan", "t4-qlora", "1:2:1"], "nothing of t4-qlora is fitted"),
        (["--nonesuch"], "--nonesuch"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = command(*arguments)
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""


def test_a_file_that_is_no_record_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    for text in ("{", "[1]", '{"schema": 1}'):
        file.write_text(text)
        answer = command("--rows", file)
        assert answer.code == 2
        assert "row.json: not a record" in answer.err


def test_a_dry_run_lists_the_cases_and_runs_none(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    answer = command("--dry-run", "--filter", "lora and not (dora or rslora)", "--output", folder)
    assert answer.code == 0
    named = {line.split()[1] for line in answer.out.splitlines()}
    assert "mistral-7b-lora-r16" in named
    assert "lora--llama-3.2-3B-rank32" in named
    assert not any("dora" in name or "ia3" in name for name in named)
    both = command("--dry-run", "a100-trainer", "ia3--llama-3.2-3B-default", "--output", folder)
    assert {line.split()[0] for line in both.out.splitlines()} == {
        "a100-trainer",
        "peft-metamathqa",
    }
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "validation"),
        (["t4-qlora"], "validation-part"),
        (["--quick"], "validation-part"),
        (["--filter", "lora"], "validation-part"),
        (["--rows", "x.json"], "validation-rows"),
    ],
)
def test_a_part_never_takes_the_place_of_the_whole(arguments: list[str], name: str) -> None:
    assert validate._folder(validate.parser().parse_args(arguments)) == name


def test_help_is_quick_and_without_torch() -> None:
    code = "import sys; from profiler import validate; validate.main(['--help']); "
    code += "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    elapsed = time.perf_counter() - started
    assert done.returncode == 0
    assert "--fail-over" in done.stdout
    plain = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import argparse, pathlib"], check=True)
    assert elapsed < 5 * (time.perf_counter() - plain) + 0.5
