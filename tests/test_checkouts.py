"""`profiler.diff --base git:REVISION`: two revisions of a project, one set of libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from repositories import commit_all, git
from tiny import write

from profiler import checkouts
from profiler.diff import main
from profiler.errors import UsageError

TEST = """
from mine import RANK

def test_memory(peft_profile):
    record = peft_profile(model="./tiny-opt", method=f"lora:r={RANK}", seq_len=16)
    peft_profile.check(record)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package and its memory test; the package is changed since."""
    folder = tmp_path / "project"
    write(folder)
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("RANK = 8\n")
    (folder / "test_it.py").write_text(TEST)
    commit_all(folder)
    (folder / "mine" / "__init__.py").write_text("RANK = 16\n")
    monkeypatch.chdir(folder)
    return folder


def test_each_side_runs_its_own_files_and_leaves_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--base", "git:HEAD", "--fail-over", "0", "--format", "markdown"]) == 1
    out, err = capsys.readouterr()
    assert "method.r: 8 → 16" in out.replace("\\", "")
    assert "**fails:**" in out
    assert err == ""
    assert git(project, "status", "--short").split() == ["M", "mine/__init__.py"]
    assert len(git(project, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base", "git:nowhere"], "no such revision (nowhere)"),
        (["--base", "git:--help"], "no such revision"),
        (["--base", "nowhere"], "neither a folder nor a revision"),
        (["--base", "git:HEAD", "a", "b"], "give it without records"),
        (["--head", ".", "a", "b"], "are for --base"),
        (["a", "b", "--", "-k", "x"], "are for --base"),
        ([], "name two records or folders"),
    ],
)
def test_wrong_use_is_one_line(
    project: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_no_repository_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main(["--base", "git:HEAD"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupt_takes_the_checkout_away(project: Path) -> None:
    kept: list[Path] = []

    def interrupted() -> None:
        with checkouts.checkout("git:HEAD") as folder:
            assert (folder / "mine" / "__init__.py").read_text() == "RANK = 8\n"
            kept.append(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not kept[0].exists()
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_a_subfolder_is_seen_in_the_other_revision(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "mine")
    with checkouts.checkout("git:HEAD") as folder:
        assert folder.name == "mine"
    new = project / "new"
    new.mkdir()
    monkeypatch.chdir(new)
    with pytest.raises(UsageError, match="has no folder new"), checkouts.checkout("git:HEAD"):
        pass
