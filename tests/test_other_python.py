"""`profiler.sweep --python PATH`: another environment's libraries, this package's code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tiny import write

from profiler.diff import main as diff
from profiler.other_python import without
from profiler.store import Store
from profiler.sweep import main


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this one's libraries, but for a peft that calls itself another."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_paths()["purelib"]
    info = packages / "peft-99.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 99.1\n")
    (packages / "libraries.pth").write_text(f"{ours}\n")
    return folder


def test_two_environments_are_kept_apart_and_compared(
    other: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path)["opt"]
    flags = ["--model", model, "--seq-len", "16", "--output", str(tmp_path / "out"), "--workers=1"]
    assert main([*flags, "--quiet"]) == 0
    capfd.readouterr()
    for _ in range(2):  # the second time it is stored
        status = main(["--python", str(other), *flags, "--format", "json", "--quiet"])
        out, err = capfd.readouterr()
        assert status == 0, err
        (record,) = json.loads(out)
        assert record["environment"]["peft"] == "99.1"
    records = Store(tmp_path / "out").all()
    assert len({one.environment["fingerprint"] for one in records}) == len(records) == 2
    assert f"--python {other}" in (tmp_path / "out" / "index.html").read_text()
    assert diff([str(tmp_path / "out")]) == 0
    assert "99.1" in capfd.readouterr().out


def test_what_is_no_environment_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no program")
    (tmp_path / "false").symlink_to("/bin/false")
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\necho \'{"python": [3, 8], "missing": [], "versions": {}}\'\n')
    lacks = tmp_path / "lacks"
    lacks.write_text(
        '#!/bin/sh\necho \'{"python": [3, 12], "missing": ["pynvml"], "versions": {}}\'\n'
    )
    early = tmp_path / "early"
    versions = {"torch": "2.13.0+cpu", "transformers": "4.40.1", "peft": "0.13.2"}
    told = json.dumps({"python": [3, 11], "missing": [], "versions": versions})
    early.write_text(f"#!/bin/sh\necho '{told}'\n")
    for script in (old, lacks, early):
        os.chmod(script, 0o755)  # noqa: PTH101
    for name, words in (
        ("none", "no such interpreter"),
        ("empty", "without bin/python"),
        ("text", "does not answer as Python does"),
        ("false", "does not answer as Python does"),
        ("old", "is Python 3.8; 3.11 is needed"),
        ("lacks", "pip install nvidia-ml-py"),
        ("early", "has transformers 4.40.1; 4.48 is needed"),
    ):
        assert main(["--python", str(tmp_path / name), "--quick"]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1


def test_the_flag_alone_is_taken_away() -> None:
    line = ["study", "--python", "a", "--quick", "--python=b", "--model", "m"]
    assert without(line) == ["study", "--quick", "--model", "m"]
