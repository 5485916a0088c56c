"""`python -m profiler.export`: what is asked for where it is asked for, a line for each error."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from profiler import trace_file
from profiler.export.__main__ import main
from profiler.export.formats import FORMATS
from profiler.record import Memory, Record

Capture = pytest.CaptureFixture[str]


def one_line(capsys: Capture) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("profiler.export: ")
    return err


def record_file(folder: Path, part: str = "lora-a100") -> Path:
    (path,) = (one for one in (folder / "records").glob("*.json") if part in one.name)
    return path


@pytest.fixture
def bare(folder: Path, tmp_path: Path) -> Path:
    """The records without their traces."""
    shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.gz"))
    return tmp_path / "bare"


@pytest.mark.parametrize("given", ["folder", "records", "files"])
def test_records_are_named_by_folder_or_file(
    folder: Path, records: list[Record], given: str, capsys: Capture
) -> None:
    paths = {
        "folder": [folder],
        "records": [folder / "records"],
        "files": sorted((folder / "records").glob("*.json")),
    }[given]
    assert main([*map(str, paths), "--to", "csv"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert {row["id"] for row in rows} == {record.id for record in records}


def test_columns_and_table(folder: Path, capsys: Capture) -> None:
    arguments = [
        str(folder),
        "--to",
        "csv",
        "--table",
        "modules",
        "--columns",
        "module, parameters",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[0] == "module,parameters"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_a_file_and_says_where(
    folder: Path, tmp_path: Path, name: str, capsys: Capture
) -> None:
    path = tmp_path / "new" / f"out{FORMATS[name].suffix}"
    arguments = [str(record_file(folder)), "--to", name, "--output", str(path)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{path}\n"
    written = path.read_bytes()
    assert written
    assert main(arguments) == 2
    assert "--overwrite replaces it" in one_line(capsys)
    assert main([*arguments, "--overwrite"]) == 0
    assert path.read_bytes() == written


def test_text_goes_to_stdout(folder: Path, capsys: Capture) -> None:
    assert main([str(record_file(folder)), "--to", "chrome"]) == 0
    assert json.loads(capsys.readouterr().out)["traceEvents"]
    assert main([str(folder), "--to", "latex"]) == 0
    assert r"\toprule" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["parquet", "memory_viz"])
def test_what_is_binary_does_not(folder: Path, name: str, capsys: Capture) -> None:
    assert main([str(record_file(folder)), "--to", name]) == 2
    assert "name a file with --output" in one_line(capsys)


def test_each_trace_is_a_file(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main([str(folder), "--to", "chrome"]) == 2
    assert "4 traces, and chrome is a file for each" in one_line(capsys)
    assert main([str(folder), "--to", "memory_viz", "--output", f"{tmp_path}/new/"]) == 0
    paths = capsys.readouterr().out.splitlines()
    stems = {path.name.removesuffix(".json") for path in (folder / "records").glob("*.json")}
    assert {Path(path).name.removesuffix(".pickle") for path in paths} == stems
    for path in paths:
        assert pickle.loads(Path(path).read_bytes())["segments"]
    assert main([str(folder), "--to", "memory_viz", "--output", paths[0]]) == 2
    assert "need a folder" in one_line(capsys)


def test_a_folder_takes_the_trace_of_one_record(folder: Path, tmp_path: Path) -> None:
    path = record_file(folder)
    assert main([str(path), "--to", "chrome", "--output", str(tmp_path)]) == 0
    (made,) = tmp_path.iterdir()
    assert made.name == path.name.removesuffix(".json") + ".trace.json"


def test_a_name_that_ends_so_is_compressed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json.gz"
    assert main([str(record_file(folder)), "--to", "chrome", "--output", str(path)]) == 0
    assert json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def test_a_missing_trace_names_the_flag_that_keeps_it(bare: Path, capsys: Capture) -> None:
    assert main([str(record_file(bare)), "--to", "chrome"]) == 2
    assert "run the sweep with --keep-traces" in one_line(capsys)
    assert main([str(bare), "--to", "memory_viz", "--output", "x/"]) == 2
    assert "no trace lies beside any of the 4 records" in one_line(capsys)


def test_records_without_traces_are_left_out_and_named(
    folder: Path, bare: Path, capsys: Capture
) -> None:
    path = record_file(bare)
    shutil.copy(trace_file.beside(record_file(folder)), path.parent)
    assert main([str(bare), "--to", "chrome"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["otherData"]["id"] in path.name
    assert err.count("left out: ") == 3
    assert "--keep-traces" in err


def test_a_broken_trace_is_one_line(folder: Path, bare: Path, capsys: Capture) -> None:
    path = record_file(bare)
    trace_file.beside(path).write_bytes(trace_file.beside(record_file(folder)).read_bytes()[:99])
    assert main([str(path), "--to", "chrome"]) == 1
    assert "is cut short" in one_line(capsys)


def test_one_broken_trace_of_several_is_left_out(
    folder: Path, bare: Path, tmp_path: Path, capsys: Capture
) -> None:
    for path in (folder / "records").glob("*.gz"):
        shutil.copy(path, bare / "records")
    trace_file.beside(record_file(bare)).write_bytes(b"x")
    assert main([str(bare), "--to", "chrome", "--output", f"{tmp_path}/out/"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.count("left out: ") == 1
    assert "not a trace" in err


def test_what_never_has_a_trace_says_so(
    folder: Path, records: list[Record], tmp_path: Path, capsys: Capture
) -> None:
    failed = records[0].model_copy(update={"status": "failed", "memory": Memory()})
    path = tmp_path / "failed.json"
    path.write_text(failed.to_json())
    assert main([str(path), "--to", "chrome"]) == 2
    assert "the cell is failed, it has no trace" in one_line(capsys)


def test_unreadable_records_are_left_out_and_named(bare: Path, capsys: Capture) -> None:
    (bare / "records" / "odd.json").write_text("{")
    assert main([str(bare), "--to", "csv", "--columns", "id"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5
    assert "left out" in err
    assert "odd.json" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{folder}"], "--to"),
        (["--to", "csv"], "PATH"),
        (["{folder}", "--to", "cvs"], "did you mean csv?"),
        (["{folder}", "--to", "csv", "--tabel", "cells"], "--tabel"),
        (["{folder}", "--to", "csv", "--table", "cell"], "did you mean cells?"),
        (["{folder}", "--to", "csv", "--table", "fits"], "for latex and markdown"),
        (["{folder}", "--to", "latex", "--table", "fits", "--columns", "id"], "--columns chooses"),
        (["{folder}", "--to", "csv", "--columns", "idd"], "unknown column 'idd'"),
        (["{folder}", "--to", "chrome", "--table", "cells"], "chrome shows a trace"),
        (["{folder}", "--to", "csv", "--output", "{folder}"], "is a folder"),
        (["{folder}/nothing", "--to", "csv"], "is not there"),
        (["{folder}/..", "--to", "csv"], "no records in"),
        ([__file__, "--to", "csv"], "not a record"),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path, arguments: list[str], reason: str, capsys: Capture
) -> None:
    assert main([word.format(folder=folder) for word in arguments]) == 2
    assert reason in one_line(capsys)


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from profiler.export.__main__ import main
assert main(["--help"]) == 0
heavy = {"torch", "pandas", "pyarrow", "pydantic", "jinja2", "matplotlib", "numpy"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in FORMATS:
        assert name in done.stdout


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m profiler.export {folder} --to csv --table timeline | head -1"
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
