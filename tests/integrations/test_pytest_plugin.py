"""The `peft_profile` fixture, in projects that the tests make; first the one of the README."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_runs import Pytest, Run, install
from repositories import commit_all, git
from tiny import write

from profiler import diff
from profiler.record import Record

README = (Path(__file__).parent.parent.parent / "README.md").read_text()

Typed = Callable[..., Run]

TEST = """
def test_memory(peft_profile):
    record = peft_profile(model="./tiny-opt", method="lora:r={rank}", seq_len=16)
    peft_profile.check(record{how})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a tiny model in it, where a project begins."""
    folder = tmp_path / "project"
    write(folder)
    return folder


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pytest]:
    folder = tmp_path_factory.mktemp("warm")
    started = Pytest(install(folder / "installed"), write(folder)["opt"])
    yield started
    started.close()


@pytest.fixture
def run(project: Path, warm: Pytest) -> Typed:
    """`pytest` in the project, with what was installed."""
    return lambda *arguments: warm(project, arguments)


def section() -> list[tuple[str, str]]:
    """The code blocks of "Track regressions", as (language, text)."""
    text = README.partition("\n## Track regressions\n")[2].partition("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def is_as_shown(output: str, shown: str) -> bool:
    """Whether the lines shown stand in the output, in this order, where `...` is any text."""
    pattern = re.escape(shown.strip()).replace(re.escape("..."), ".*")
    return re.search(rf"^\s*{pattern}\s*$", output.strip(), re.DOTALL | re.MULTILINE) is not None


def test_the_readme_word_for_word(project: Path, run: Typed) -> None:
    before: dict[str, str] = {}
    typed: list[tuple[str, Run]] = []
    for language, text in section():
        if language == "python":
            name = text.partition("\n")[0].removeprefix("# ")
            assert re.fullmatch(r"\w+\.py", name)
            path = project / name
            before[name] = path.read_text() if path.exists() else text
            path.write_text(text)
        elif language == "console":
            for command, _, shown in re.findall(r"^\$ (.*)(\n)((?:(?!\$ ).*\n)*)", text, re.M):
                first, *arguments = shlex.split(command)
                assert first == "pytest"
                typed.append((command, run(*arguments)))
                assert is_as_shown(typed[-1][1].output, shown), typed[-1][1].output
    assert [done.code for _, done in typed] == [0, 0, 1]
    assert (project / "method.py").read_text() != before["method.py"]
    # Who takes the regression out again is done.
    for name, text in before.items():
        (project / name).write_text(text)
    green = run("-q")
    assert green.code == 0, green.output


def workflow() -> dict[Any, Any]:
    ((_, text),) = (block for block in section() if block[0] == "yaml")
    return dict(yaml.safe_load(text))


def test_the_workflow_compares_two_branches(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = workflow()
    assert content[True] == "pull_request"  # YAML 1.1 reads `on` so
    steps = content["jobs"]["memory"]["steps"]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    compare, post = (step for step in steps if "name" in step)
    assert post["if"] == "always()"
    command, _, target = compare["run"].replace("\\\n", "").rpartition(">")
    assert target.strip() in post["run"]
    python, option, module, *arguments = shlex.split(command.replace("$GITHUB_BASE_REF", "main"))
    assert (python, option, module) == ("python", "-m", "profiler.diff")

    (project / "test_it.py").write_text(TEST.format(rank=8, how=""))
    commit_all(project)
    git(project, "update-ref", "refs/remotes/origin/main", "HEAD")
    monkeypatch.chdir(project)
    assert diff.main(arguments) == 0
    capsys.readouterr()
    (project / "test_it.py").write_text(TEST.format(rank=16, how=""))
    assert diff.main(arguments) == 1
    told = capsys.readouterr().out
    assert "| peak allocated |" in told
    assert "**fails:**" in told


def test_a_baseline_is_missing_then_of_other_versions_then_broken(
    project: Path, run: Typed
) -> None:
    (project / "tests").mkdir()
    (project / "tests" / "test_it.py").write_text(TEST.format(rank=8, how=""))
    missing = run("-q")
    assert missing.code == 1
    ((file, command),) = re.findall(
        r"^no baseline at (\S+); write it with: pytest (.*)$", missing.output, re.MULTILINE
    )
    baseline = project / file
    assert not baseline.exists()
    assert run(*shlex.split(command)).code == 0
    assert Record.from_json(baseline.read_bytes()).status == "ok"

    data = json.loads(baseline.read_text())
    now = data["environment"]["transformers"]
    data["environment"]["transformers"] = "4.0.0"
    data["memory"]["peak_allocated"] -= 512
    baseline.write_text(json.dumps(data))
    refused = run("-q")
    assert refused.code == 1
    assert f"of another environment: transformers 4.0.0 → {now};" in refused.output
    assert "peak allocated" not in refused.output
    marked = run("-q", "--peft-across-versions")
    assert marked.code == 1
    assert "peak allocated +512 bytes" in marked.output
    assert f"The baseline is of another environment: transformers 4.0.0 → {now}." in marked.output
    line = f"compared with a baseline of another environment: {file}: transformers 4.0.0 → {now}"
    assert line in marked.output

    baseline.write_text("{")
    broken = run("-q")
    assert broken.code == 1
    assert f"{baseline.name}: not a record" in broken.output


HOSTILE = """
import pytest
from profiler import Record

@pytest.mark.parametrize("word", ["../../x", "/etc/x", "a\\x00b", "..", "x" * 400, "ü/ü"])
def test_it(peft_profile, word):
    record = Record(id="x", status="ok", source="simulated", spec={})
    peft_profile.check(record)
    peft_profile.check(record, name=word)
"""


def test_no_name_leads_out_of_the_folder(project: Path, run: Typed) -> None:
    (project / "test_it.py").write_text(HOSTILE)
    around = {path for path in project.parent.rglob("*") if path.is_file()}
    done = run("-q", "--peft-update", "--peft-records", "records")
    assert done.code == 0, done.output
    made = {path for path in project.parent.rglob("*") if path.is_file()} - around
    made = {path for path in made if path.suffix != ".pyc"}
    assert {path.parent for path in made} == {
        project / "peft_baselines" / "test_it",
        project / "records",
    }
    assert len(made) == 6 * 2 * 2


WRONG = """
from profiler import Record

RECORD = Record(id="x", status="ok", source="simulated", spec={})

def test_flag(peft_profile):
    peft_profile(model="./tiny-opt", metod="lora")

def test_value(peft_profile):
    peft_profile(model="./tiny-opt", method="lorra")

def test_record(peft_profile):
    peft_profile.check(3)

def test_tolerance(peft_profile):
    peft_profile.check(RECORD, tolerance="much")

def test_failed(peft_profile):
    record = RECORD.model_copy(update={"status": "failed", "error": "no luck"})
    peft_profile.check(record)

def test_twice(peft_profile):
    record = RECORD
    try:
        peft_profile.check(record, name="a")
    except BaseException:
        pass
    peft_profile.check(record, name="a")
"""


def test_what_is_wrong_is_one_line(project: Path, run: Typed) -> None:
    (project / "test_it.py").write_text(WRONG)
    done = run("-q", "--tb=short")
    assert done.code == 1
    assert "6 failed" in done.output
    assert "Traceback" not in done.output
    for said in (
        "peft_profile() got an unexpected keyword argument 'metod'",
        "unknown method 'lorra'",
        "not 3",
        "tolerance is a share ('0.1%') or a size ('64MiB'), not 'much'",
        "the run failed: no luck",
        "two records of one test need names",
    ):
        assert said in done.output, done.output


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, profiler.integrations.pytest_plugin;"
        "print([name for name in ('torch', 'pydantic', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
