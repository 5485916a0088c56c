"""A measured cell in a fresh process of its own, which may take nothing down with it.

The process is watched: out of time or the machine nearly out of memory, it is killed, and whatever
becomes of it turns into a record. Nothing that it started is left behind.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from profiler import preflight
from profiler.endings import Ending, last_lines
from profiler.environment import environment
from profiler.errors import StoreError, UsageError
from profiler.executors.orphans import end_descendants
from profiler.hardware.host_memory import Available, HostMemory, oom_kills
from profiler.record import Memory, Record, Status
from profiler.resolve import Cell

#: What runs a cell: it reads the spec's JSON on stdin and writes its answer at the path that
#: follows (`profiler.bench.child`). -P: the current folder is in the path only if it is in ours.
COMMAND = (sys.executable, "-P", "-u", "-X", "faulthandler", "-m", "profiler.bench.child")

#: Environment variable by which a run's processes are known wherever they went.
_MARK = "PROFILER_MEASURED_RUN"

#: Memory that a process could take in a second, in bytes: how soon to look again depends on it.
_FASTEST = 20e9

#: Seconds between two looks: least, most.
_LOOKS = (0.02, 0.25)

#: Seconds within which a killed process must be gone.
_GONE = 60.0


def run_isolated(
    cell: Cell,
    *,
    ignore_memory: bool = False,
    timeout: float | None = None,
    traces: Path | None = None,
    command: Sequence[str] = COMMAND,
) -> Record:
    """Measure a cell in a process of its own, if it fits in memory.

    Ctrl-C ends the process and goes on to the caller. A process whose parent dies ends too.

    Args:
        ignore_memory: Start it although it will not fit. It is still stopped before the machine
            is out of memory.
        timeout: Seconds after which it is stopped, its start and imports included; None: never.
        traces: Folder of a store in which to keep the run's trace.
        command: What runs it, without the answer's path.

    Returns:
        Its record; if it gave none, one with status `refused`, `oom`, `crashed`, `timeout`,
        `failed` or `unsupported`, and what is known in `error`, `memory.process` and `log`.

    Raises:
        UsageError: what the spec asks for does not exist.
    """
    memory = HostMemory()
    if cell.spec.device == "cpu" and not ignore_memory:
        tensors = preflight.predicted_bytes(cell)
        reason = preflight.refusal(tensors, memory.available()) if tensors is not None else ""
        if reason:
            return without_result(cell, "refused", reason)
    with tempfile.TemporaryDirectory(prefix="profiler-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        ending = _run(cell, command, folder, timeout, memory, traces)
        return _record(cell, ending, folder / "answer.json")


def without_result(cell: Cell, status: Status, error: str, ending: Ending | None = None) -> Record:
    """The record of a measured cell that has none of its own."""
    extra: dict[str, Any] = {}
    if ending is not None:
        extra["log"] = ending.log
        extra["memory"] = Memory(process=ending.process)
    return Record(
        id=cell.id,
        status=status,
        error=" ".join(error.split()),
        source="measured",
        spec=cell.record_spec,
        environment=environment(cell.spec.device),
        **extra,
    )


def _run(
    cell: Cell,
    command: Sequence[str],
    folder: Path,
    timeout: float | None,
    memory: HostMemory,
    traces: Path | None,
) -> Ending:
    """Run the process to its end, or to ours."""
    asked, log = folder / "spec.json", folder / "log.txt"
    asked.write_text(cell.spec.to_json(), encoding="ascii")
    mark = (_MARK, secrets.token_hex(8))
    arguments = [os.fspath(folder / "answer.json"), str(os.getpid())]
    if traces is not None:
        arguments.append(os.fspath(traces.absolute()))
    # The modules that this process finds, the other must find too.
    path = os.pathsep.join(os.path.abspath(one) for one in sys.path)  # noqa: PTH100
    kills = oom_kills()
    started = time.monotonic()
    with asked.open("rb") as stdin, log.open("wb") as stdout:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, mark[0]: mark[1]},
            start_new_session=True,
        )
    ending = Ending(timeout=timeout)
    try:
        _watch(process, ending, memory, started)
        ending.seconds = time.monotonic() - started
    finally:
        end_descendants(process.pid, mark)
        with suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel cannot be killed
            process.wait(_GONE)
    ending.returncode = process.returncode
    after = oom_kills()
    if kills is not None and after is not None:
        ending.oom_killed = after > kills
    ending.log = last_lines(log)
    return ending


def _watch(
    process: subprocess.Popen[bytes], ending: Ending, memory: HostMemory, started: float
) -> None:
    """Return when the process has ended, or must be."""
    seen = psutil.Process(process.pid)
    interval = _LOOKS[0]
    while True:
        left = float("inf")
        if ending.timeout is not None:
            left = started + ending.timeout - time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, min(interval, left)))
            return
        with suppress(psutil.Error):
            ending.rss_last = seen.memory_info().rss or ending.rss_last
            ending.rss_peak = max(ending.rss_peak, ending.rss_last)
        ending.available = memory.available()
        if ending.available.nbytes < ending.available.reserve:
            ending.stopped = "memory"
            return
        if left <= 0:
            ending.stopped = "timeout"
            return
        interval = _until_next_look(ending.available)


def _until_next_look(available: Available) -> float:
    """Seconds in which the process cannot have eaten into the reserve."""
    least, most = _LOOKS
    return min(max((available.nbytes - available.reserve) / _FASTEST, least), most)


def _record(cell: Cell, ending: Ending, path: Path) -> Record:
    """What the process answered, or how it ended without an answer."""
    try:
        text = path.read_bytes()
    except OSError:
        return without_result(cell, *ending.describe(), ending)
    try:
        answer = json.loads(text)
        if isinstance(answer, dict) and "failure" in answer:
            if answer["failure"] == "usage":
                raise UsageError(str(answer["error"]))
            return without_result(cell, answer["failure"], str(answer["error"]), ending)
        record = Record.from_dict(answer)
    except (ValueError, KeyError, RecursionError, StoreError) as error:
        _, how = ending.describe()
        return without_result(cell, "crashed", f"its answer is {error}; {how}", ending)
    if record.id != cell.id:
        reason = f"the process answered for another cell, {record.id!r}"
        return without_result(cell, "crashed", reason, ending)
    return record
