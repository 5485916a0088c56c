"""Times of measured steps in pytest-benchmark's storage, and what is left out of a comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write

from profiler.integrations.timed_tests import incomparable

ROOT = Path(__file__).parent.parent.parent

TEST = """
def test_time(peft_profile, benchmark):
    peft_profile.time(benchmark, rounds=2, model="./tiny-opt", method="lora:r=2", seq_len=8)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A worker of xdist says so to its children, and pytest-benchmark stores nothing there.
    variables = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_times_are_stored_and_only_their_like_compared(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "test_it.py").write_text(TEST)
    first = run(tmp_path, "--benchmark-save=one")
    assert first.returncode == 0, first.stdout + first.stderr
    (file,) = tmp_path.glob(".benchmarks/*/*_one.json")
    stored = json.loads(file.read_text())
    (entry,) = stored["benchmarks"]
    assert entry["stats"]["rounds"] == 2
    assert entry["extra_info"]["peft_profile"]["on"] == "cpu"
    assert incomparable(entry) == ""
    entry["extra_info"]["peft_profile"]["peft"] = "0.1"
    assert incomparable(entry).startswith("peft 0.1 there")
    file.write_text(json.dumps(stored))
    again = run(tmp_path, "--benchmark-compare=0001", "--benchmark-compare-fail=min:1%")
    told = again.stdout + again.stderr
    assert again.returncode == 0, told  # nothing is held against what is not its like
    assert "test_it.py::test_time: not compared" in told
    assert "peft 0.1 there" in told


def test_benchmarks_of_others_are_none_of_ours() -> None:
    assert incomparable({"extra_info": {}}) == ""
    assert incomparable({}) == ""
    assert incomparable({"extra_info": {"peft_profile": 3}}) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ('device="rtx-4090"', "times are measured: device must be cpu or cuda"),
        ('method="lorra"', "unknown method"),
        ("modell=1", "modell"),
    ],
)
def test_wrong_fields_fail_in_a_line(tmp_path: Path, fields: str, words: str) -> None:
    write(tmp_path)
    given = "" if "method" in fields else 'method="lora", '
    (tmp_path / "test_it.py").write_text(
        "def test_time(peft_profile, benchmark):\n"
        f'    peft_profile.time(benchmark, model="./tiny-opt", {given}{fields})\n'
    )
    done = run(tmp_path)
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stdout
