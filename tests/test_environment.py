from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import profiler
from profiler import environment as module
from profiler.environment import LIBRARIES, environment


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    module._environment.cache_clear()
    yield
    module._environment.cache_clear()


def test_every_key_of_the_contract_is_there_and_is_json() -> None:
    found = environment()
    keys = "python torch transformers peft bitsandbytes device driver cpu os commit fingerprint"
    assert set(keys.split()) <= set(found)
    assert json.loads(json.dumps(found)) == found
    assert re.fullmatch(r"[0-9a-f]{12}", found["fingerprint"])
    assert environment() == found


def test_the_versions_are_the_installed_ones() -> None:
    found = environment()
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["profiler"] == profiler.__version__


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("version", ["0.0.1", None])
def test_another_version_of_any_library_is_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch, library: str, version: str | None
) -> None:
    before = environment()
    installed = importlib.metadata.version

    def other(name: str) -> str:
        if name != library:
            return installed(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    module._environment.cache_clear()
    monkeypatch.setattr(importlib.metadata, "version", other)
    after = environment()
    assert after[library] == version
    assert after["fingerprint"] != before["fingerprint"]


@pytest.mark.parametrize("device", ["cpu", "cuda", "sim:cpu"])
def test_the_machine_counts_only_where_it_is_what_runs(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    before = {name: environment(name)["fingerprint"] for name in ("rtx-4090", device)}
    module._environment.cache_clear()
    monkeypatch.setattr(module, "_cpu", lambda: ("another CPU", []))
    after = {name: environment(name)["fingerprint"] for name in ("rtx-4090", device)}
    assert after["rtx-4090"] == before["rtx-4090"]
    assert after[device] != before[device]


def test_a_change_of_what_makes_the_figures_is_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "profiler"
    for name in ("__init__.py", "run.py", "sweep.py", "hardware/table.toml", "report/page.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("old")
    monkeypatch.setattr(profiler, "__file__", str(package / "__init__.py"))

    def after(name: str) -> str:
        module._environment.cache_clear()
        (package / name).write_text("new")
        fingerprint = environment()["fingerprint"]
        assert isinstance(fingerprint, str)
        return fingerprint

    first = environment()["fingerprint"]
    assert after("sweep.py") == after("report/page.py") == first
    assert len({first, after("run.py"), after("hardware/table.toml"), after("new.py")}) == 4


def test_what_is_named_as_not_counting_exists() -> None:
    home = Path(profiler.__file__).parent
    assert {name for name in module._AROUND if name.endswith(".py")} <= {
        path.name for path in home.iterdir()
    }


def test_outside_a_checkout_there_is_no_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "profiler").mkdir()
    monkeypatch.setattr(profiler, "__file__", str(tmp_path / "profiler" / "__init__.py"))
    assert environment()["commit"] is None


def test_the_commit_is_that_of_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "profiler").mkdir()
    source = tmp_path / "profiler" / "__init__.py"
    source.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        if subprocess.run([*git, *arguments], capture_output=True).returncode:
            pytest.skip("needs git")
    monkeypatch.setattr(profiler, "__file__", str(source))
    commit = environment()["commit"]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert commit == head.stdout.strip()
    module._environment.cache_clear()
    source.write_text("changed")
    assert environment()["commit"] == f"{commit}-dirty"


def test_reading_it_imports_none_of_the_libraries() -> None:
    code = (
        "import sys; from profiler.environment import LIBRARIES, environment; environment();"
        "found = set(LIBRARIES) & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
