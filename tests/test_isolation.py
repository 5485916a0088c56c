"""Measured cells in processes of their own. The children are small scripts, without torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cells
import psutil
import pytest

from profiler import isolation, preflight
from profiler.errors import UsageError
from profiler.hardware.host_memory import Available
from profiler.isolation import run_isolated
from profiler.record import Record
from profiler.resolve import Cell
from profiler.runner import run_tasks
from profiler.spec import RunSpec
from profiler.store import Store

MIB = 2**20

#: Waits for ever.
HANG = "import threading; threading.Event().wait()"

#: Starts a process that waits for ever and leaves its id in the file that the cell's label names.
GRANDCHILD = """
import json, os, subprocess, sys
folder = json.load(sys.stdin)["method"].split()[1]
child = subprocess.Popen(
    [sys.executable, "-c", "import threading; threading.Event().wait()"],
    start_new_session={session},
)
open(os.path.join(folder, str(child.pid)), "w").close()
{then}
"""

#: Runs the real child's code around a function of the script.
CHILD = """
import sys
sys.path.insert(0, {tests!r})
import fake_cells
from profiler.bench import child
from profiler.errors import UnsupportedError, UsageError
def measure(spec):
    {body}
sys.exit(child.main(measure))
"""


def cell(method: str = "ok") -> Cell:
    spec = fake_cells.spec(method, device="cpu")
    nothing: Any = None
    return Cell(
        spec=spec,
        model=nothing,
        method=nothing,
        config=None,
        record_spec=fake_cells.record_spec(spec),
        id=fake_cells.identity(spec),
        unsupported="",
    )


def script(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def child(body: str) -> list[str]:
    return script(CHILD.format(tests=str(Path(__file__).parent), body=body))


def isolated(code: str | list[str], made: Cell | None = None, **options: Any) -> Record:
    command = script(code) if isinstance(code, str) else code
    return run_isolated(made or cell(), ignore_memory=True, command=command, **options)


def said(record: Record) -> str:
    assert record.error is not None
    assert "\n" not in record.error
    return record.error


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has collected does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Any:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before


def test_a_record_comes_back_as_it_was_given() -> None:
    made = cell()
    record = isolated(child("return fake_cells.record(spec, source='measured')"), made)
    assert record == fake_cells.record(made.spec, source="measured")


def test_the_real_command_finds_the_package_and_says_what_is_wrong(tmp_path: Path) -> None:
    made = cell()
    spec = made.spec.replace(model=str(tmp_path / "nowhere"), method="lora")
    with pytest.raises(UsageError, match="nowhere"):
        run_isolated(Cell(**{**vars(made), "spec": spec}), ignore_memory=True)


def test_a_process_that_crashes_after_its_answer_has_answered() -> None:
    body = "import atexit, os; atexit.register(os.abort); return fake_cells.record(spec)"
    assert isolated(child(body)).status == "ok"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_killed_process_is_crashed_with_the_signals_name(number: signal.Signals) -> None:
    made = cell()
    record = isolated(f"print('last words'); import os; os.kill(os.getpid(), {int(number)})", made)
    assert (record.status, record.source) == ("crashed", "measured")
    assert (record.id, record.spec) == (made.id, made.record_spec)
    assert not record.answered
    assert number.name in said(record)
    assert "last words" in said(record)
    assert ("out-of-memory killer" in said(record)) == (number == signal.SIGKILL)
    assert record.environment["fingerprint"]


@pytest.mark.parametrize("code", [0, 7])
def test_a_process_that_ends_without_an_answer_is_crashed(code: int) -> None:
    record = isolated(f"raise SystemExit({code})")
    assert record.status == "crashed"
    assert f"exit code {code}" in said(record)


def test_a_command_that_is_not_there_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError):
        isolated(["/no/such/command"])


@pytest.mark.parametrize(
    "answer",
    ["", "no JSON", "null", "[" * 100_000, '{"schema": 1}', '{"schema": 99}', "\\xff",
     '{"failure": "bored", "error": "x"}', '{"failure": "oom"}'],
)  # fmt: skip
def test_garbage_for_an_answer_is_crashed(answer: str) -> None:
    record = isolated(f"import sys; open(sys.argv[1], 'w').write({answer!r})")
    assert record.status == "crashed"
    assert said(record)


def test_another_cells_record_is_not_taken() -> None:
    record = isolated(child("return fake_cells.record(fake_cells.spec('other'))"))
    assert record.status == "crashed"
    assert "another cell" in said(record)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("raise MemoryError", "oom"),
        ("raise RuntimeError('DefaultCPUAllocator: not enough memory: 9 bytes')", "oom"),
        ("raise RuntimeError('no luck')", "failed"),
        ("raise UnsupportedError('nothing to train')", "unsupported"),
    ],
)
def test_what_the_cell_raises_has_its_status(body: str, status: str) -> None:
    record = isolated(child(body))
    assert record.status == status
    if status != "unsupported":
        assert not record.answered
        assert any("Traceback" in line for line in record.log)  # type: ignore[attr-defined]


def test_wrong_usage_in_the_process_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no such thing"):
        isolated(child("raise UsageError('no such thing')"))


def test_a_process_that_hangs_is_stopped_in_time() -> None:
    record = isolated(HANG, timeout=0.5)
    assert record.status == "timeout"
    assert "--timeout 0.5" in said(record)
    assert record.memory.process is not None
    assert record.memory.process["rss_peak"] >= record.memory.process["rss_last"] > MIB


def test_a_process_that_ignores_signals_is_stopped_too() -> None:
    deaf = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)];"
    assert isolated(deaf + HANG, timeout=0.3).status == "timeout"


class _SmallMachine:
    """A machine of 400 MiB, of which the children of this process take their part."""

    limit = 400 * MIB

    def available(self) -> Available:
        taken = 0
        for process in psutil.Process().children(recursive=True):
            try:
                taken += process.memory_info().rss
            except psutil.Error:
                continue
        return Available(max(0, self.limit - taken), self.limit, "on this machine")


def test_a_process_that_allocates_without_end_is_stopped_before_memory_is_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "HostMemory", _SmallMachine)
    # Two gibibytes are far past the limit: then nothing has watched.
    record = isolated("[bytearray(b'x') * 2**20 for _ in range(2048)]; raise SystemExit(3)")
    assert record.status == "oom"
    assert not record.answered
    assert "400" not in said(record)  # figures are in GiB
    assert "of 0.39 GiB left on this machine" in said(record)
    process = record.memory.process
    assert process is not None
    assert 0 < process["rss_peak"] < 2048 * MIB


def test_a_cell_that_does_not_fit_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "predicted_bytes", lambda made: 2**60)
    command = script(f"open({str(tmp_path / 'ran')!r}, 'w')")
    record = run_isolated(cell(), command=command)
    assert record.status == "refused"
    assert "--ignore-memory" in said(record)
    assert not (tmp_path / "ran").exists()
    run_isolated(cell(), command=command, ignore_memory=True)
    assert (tmp_path / "ran").exists()
    monkeypatch.setattr(preflight, "predicted_bytes", lambda made: None)
    assert run_isolated(cell(), command=command).status == "crashed"


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize(
    ("then", "status"),
    [("", "crashed"), ("os.kill(os.getpid(), 9)", "crashed"), (HANG, "oom")],
)
def test_a_grandchild_does_not_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, status: str, session: bool
) -> None:
    class Machine:
        """Out of memory once the grandchild is there."""

        def available(self) -> Available:
            left = 2**20 if list(tmp_path.iterdir()) else 2**40
            return Available(left, 2**40, "on this machine")

    if status == "oom":
        monkeypatch.setattr(isolation, "HostMemory", Machine)
    code = GRANDCHILD.format(session=session, then=then)
    record = isolated(code, cell(f"x {tmp_path}"))
    assert record.status == status
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    until(lambda: not alive(pid))


def test_ctrl_c_ends_the_process_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def available(self) -> Available:
            raise KeyboardInterrupt

    monkeypatch.setattr(isolation, "HostMemory", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        isolated(HANG)


PARENT = """
import sys
import test_isolation as here
body = "import os; open(os.path.join(spec.method.split()[1], str(os.getpid())), 'w'); " + here.HANG
here.isolated(here.child(body), here.cell("x " + sys.argv[1]))
"""


def test_the_process_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    ids = tmp_path / "ids"
    ids.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ids)],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
    ) as parent:
        try:
            until(lambda: bool(list(ids.iterdir())) or parent.poll() is not None)
            (pid,) = [int(one.name) for one in ids.iterdir()]
            assert alive(pid)
        finally:
            parent.kill()
    until(lambda: not alive(pid))


def test_whatever_becomes_of_a_cell_the_others_results_are_kept(tmp_path: Path) -> None:
    def job(spec: RunSpec) -> Record:
        codes = {
            "killed": "import os; os.kill(os.getpid(), 9)",
            "hanging": HANG,
            "garbage": "import sys; open(sys.argv[1], 'w').write('{')",
        }
        good = child("return fake_cells.record(spec, source='measured')")
        return isolated(codes.get(spec.method, good), cell(spec.method), timeout=20.0
                        if spec.method == "ok" else 0.5)  # fmt: skip

    store = Store(tmp_path)
    tasks = [
        fake_cells.task(method, device="cpu") for method in ("killed", "hanging", "garbage", "ok")
    ]
    outcomes = list(run_tasks(tasks, store, workers=2, job=job))
    status = [one.record.status for one in outcomes if one.record is not None]
    assert status == ["crashed", "timeout", "crashed", "ok"]
    assert sorted(one.id for one in store.all()) == sorted(task.id for task in tasks)
