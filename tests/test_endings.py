from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from profiler.endings import KEPT_LINES, Ending, last_lines, of_exception, telling
from profiler.errors import UnsupportedError
from profiler.hardware.host_memory import Available

GIB = 2**30


class OutOfMemoryError(RuntimeError):
    """As torch's, which is a RuntimeError too."""


def _too_much() -> BaseException:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    return raised.value


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "oom"),
        (OutOfMemoryError("CUDA: 2 GiB wanted"), "oom"),
        (_too_much(), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "oom"),
        (RuntimeError("shapes do not match"), "failed"),
        (KeyError("not enough memory"), "failed"),
        (UnsupportedError("no bias"), "unsupported"),
    ],
)
def test_an_exception_has_its_status(error: BaseException, status: str) -> None:
    found, said = of_exception(error)
    assert found == status
    assert str(error).split("\n")[0][:40] in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("ending", "status", "words"),
    [
        (Ending(returncode=3), "crashed", ["exit code 3"]),
        (Ending(returncode=0), "crashed", ["without a result"]),
        (Ending(returncode=-signal.SIGSEGV), "crashed", ["SIGSEGV"]),
        (Ending(returncode=-200), "crashed", ["signal 200"]),
        (Ending(returncode=-9), "crashed", ["SIGKILL", "out-of-memory killer"]),
        (Ending(returncode=-9, oom_killed=False), "crashed", ["SIGKILL", "not by the kernel"]),
        (Ending(returncode=-9, oom_killed=True), "oom", ["SIGKILL", "out of memory"]),
        (Ending(returncode=-6, log=["terminate called: std::bad_alloc"]), "oom", ["bad_alloc"]),
        (Ending(returncode=-6), "crashed", ["SIGABRT"]),
        (Ending(stopped="timeout", timeout=2.5, returncode=-9), "timeout", ["--timeout 2.5"]),
        (Ending(returncode=None), "crashed", ["could not be ended"]),
    ],
)
def test_an_end_has_its_status_and_says_why(ending: Ending, status: str, words: list[str]) -> None:
    found, said = ending.describe()
    assert found == status
    assert all(word in said for word in words)


def test_what_was_known_is_said() -> None:
    ending = Ending(
        returncode=-11,
        seconds=12.34,
        rss_last=3 * GIB,
        rss_peak=4 * GIB,
        available=Available(5 * GIB, 8 * GIB, "in this control group"),
        log=["a", "b", "c", "the last words"],
    )
    _, said = ending.describe()
    for word in ("12.3 s", "3.00 GiB", "5.00 GiB", "in this control group", "the last words"):
        assert word in said
    assert ending.process == {"rss_last": 3 * GIB, "rss_peak": 4 * GIB}
    ending.stopped = "memory"
    status, said = ending.describe()
    assert status == "oom"
    for word in ("5.00 GiB of 8.00 GiB", "3.00 GiB"):
        assert word in said


def test_the_end_of_a_log_is_kept_whatever_is_in_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == []
    log.write_bytes(b"\xff\n\n" * 100_000 + b"x" * 1000 + b"\nlast  \n\n")
    lines = last_lines(log)
    assert len(lines) == KEPT_LINES
    assert lines[-1] == "last"
    assert lines[-2] == "x" * 500


def test_of_a_crash_of_the_interpreter_the_signal_is_told() -> None:
    log = ["Fatal Python error: Segmentation fault", "", "Current thread", *map(str, range(9))]
    assert telling(log)[0] == log[0]
    assert telling(["one", " two "]) == ["one", "two"]
