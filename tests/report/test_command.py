"""`python -m profiler.report`: the page's path on stdout, one line for each error."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.record import Record
from profiler.report.__main__ import main
from profiler.store import Store


@pytest.fixture
def folder(study: list[Record], tmp_path: Path) -> Path:
    """A folder with two records."""
    store = Store(tmp_path / "my study")
    for record in study[:2]:
        named = record.model_copy(update={"id": f"cell-{study.index(record)}"})
        store.put(named)
    return tmp_path / "my study"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_the_page_is_built_and_its_path_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--command", "python -m profiler.sweep"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder / 'index.html'}\n"
    assert err == ""
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<h1>my study</h1>" in page
    assert "python -m profiler.sweep" in page


def test_title_and_output_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    assert main([str(folder), "--title", "Mine", "--output", str(tmp_path / "page")]) == 0
    assert "<h1>Mine</h1>" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert not (folder / "index.html").exists()


def test_a_baseline_can_be_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "index.html"
    assert main([str(folder)]) == 0
    default = page.read_text(encoding="utf-8")
    assert main([str(folder), "--baseline", "full"]) == 0
    assert page.read_text(encoding="utf-8") != default
    capsys.readouterr()
    assert main([str(folder), "--baseline", "nothing"]) == 2
    assert "unknown baseline 'nothing'" in one_line(capsys)


@pytest.mark.parametrize("made", ["nothing", "folder", "empty records", "file"])
def test_a_folder_without_records_is_one_line(
    made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "there"
    if made == "file":
        path.write_text("")
    elif made != "nothing":
        path.mkdir()
    if made == "empty records":
        (path / "records").mkdir()
    assert main([str(path)]) == 2
    assert str(path) in one_line(capsys)


def test_wrong_flags_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--colour"]) == 2
    assert one_line(capsys)
    assert main([]) == 2
    assert "DIR" in one_line(capsys)


def test_a_broken_record_is_named_and_the_others_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "records" / "broken.json").write_text("{")
    assert main([str(folder)]) == 1
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_file()
    assert err.count("\n") == 1
    assert "broken.json" in err


def test_only_broken_records_are_no_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "broken.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "broken.json" in one_line(capsys)


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(
        flag in out
        for flag in ("DIR", "--output", "--title", "--command", "--baseline", "--all-versions")
    )
