"""The page over all pages: an entry for each folder that has one, and a link to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_scripts import without_scripts

from profiler.errors import UsageError
from profiler.record import Record
from profiler.report import about, build, index
from profiler.report.__main__ import main
from profiler.store import Store


def fill(folder: Path, records: list[Record], title: str) -> None:
    for number, record in enumerate(records):
        Store(folder).put(record.model_copy(update={"id": f"cell-{number}"}))
    about.write(folder, about.About(title=title, command="python -m profiler.sweep x"))
    build(records, folder, title=title)


def test_each_study_is_linked_with_its_answer(study: list[Record], tmp_path: Path) -> None:
    fill(tmp_path / "first", study[:8], "Eight <methods>")
    fill(tmp_path / "second", study[8:9], "One method")
    (tmp_path / "empty").mkdir()
    path = index.build(tmp_path)
    html = without_scripts(path.read_text())
    assert re.findall(r'href="([a-z]+/index.html)"', html) == [
        "first/index.html", "second/index.html",
    ]  # fmt: skip
    assert "Eight &lt;methods&gt;" in html
    assert "8 cells" in html
    assert html.count("simulated") >= 2
    assert index.build(tmp_path).read_text() == path.read_text()


def test_a_folder_without_pages_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        index.build(tmp_path)
    assert main([str(tmp_path), "--index"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_page_is_rendered_again_with_what_it_said_of_itself(
    study: list[Record], tmp_path: Path
) -> None:
    fill(tmp_path, study[:2], "My study")
    assert main([str(tmp_path)]) == 0
    html = (tmp_path / "index.html").read_text()
    assert "<h1>My study</h1>" in html
    assert "python -m profiler.sweep x" in html


@pytest.mark.parametrize("text", ["", "[]", '{"title": 3}'])
def test_what_a_page_says_of_itself_is_checked(
    text: str, study: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, study[:1], "t")
    (tmp_path / "page.json").write_text(text)
    assert main([str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "page.json" in err
    assert err.count("\n") == 1
