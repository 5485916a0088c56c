"""Every command begins and ends alike: one line, its exit status, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from profiler.command import Command, Parser
from profiler.errors import ProfilerError, StoreError, UsageError

FULL = Path("/dev/full")
MODULES = ("sweep", "calibrate", "diff", "report", "export", "validate")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("no such\nthing"), 2, "profiler.try: error: no such\\nthing"),
        (StoreError("full"), 1, "profiler.try: error: full"),
        (ProfilerError("wrong"), 1, "profiler.try: error: wrong"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "profiler.try: stopped"),
    ],
)
def test_what_ends_the_work_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(arguments: Sequence[str]) -> int:
        raise error

    assert Command("profiler.try", interrupted="stopped").run(work, []) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert line in err


def test_a_defect_is_not_hidden() -> None:
    def work(arguments: Sequence[str]) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Command("profiler.try").run(work, [])


def test_a_wrong_flag_is_a_usage_error() -> None:
    parser = Parser()
    parser.add_argument("--number", type=int)
    with pytest.raises(UsageError, match="--number: invalid int value: 'x'"):
        parser.parse_args(["--number", "x"])


@pytest.mark.parametrize("name", MODULES)
def test_an_unknown_flag_and_help(name: str) -> None:
    run = [sys.executable, "-m", f"profiler.{name}"]
    wrong = subprocess.run([*run, "--no-such-flag"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith(f"profiler.{name}: error: ")
    assert wrong.stderr.count("\n") == 1
    with subprocess.Popen([*run, "--help"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.close()  # `| head -0`
        assert child.wait() in (0, -signal.SIGPIPE)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    code = """
from profiler import stdout
from profiler.command import Command, start
def work(arguments):
    stdout.to_stdout(lambda: print("data"))
    return 0
start(lambda: Command("profiler.try").run(work, []))
"""
    run = [sys.executable, "-c", code]
    with FULL.open("w") as full:
        done = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.startswith("profiler.try: error: [Errno 28] No space left on device")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stderr
