"""Cells without a simulation behind them, whose behaviour is spelled in the method's name.

In a module of its own, so that worker processes can import it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from profiler.environment import environment
from profiler.errors import UnsupportedError, UsageError
from profiler.record import Record
from profiler.runner import Task
from profiler.spec import RunSpec


def spec(method: str = "ok", **fields: Any) -> RunSpec:
    return RunSpec(model="tiny", method=method, **fields)


def task(method: str = "ok", **fields: Any) -> Task:
    made = spec(method, **fields)
    return Task(made, identity(made), record_spec(made))


def identity(made: RunSpec) -> str:
    words = "".join(letter if letter.isalnum() else "-" for letter in made.method)
    return f"{words[:40]}-{hashlib.sha256(made.to_json().encode()).hexdigest()[:12]}"


def record_spec(made: RunSpec) -> dict[str, Any]:
    return {**made.to_dict(), "method": {"label": made.method, "preset": made.method}}


def record(made: RunSpec, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "id": identity(made),
        "status": "ok",
        "source": "simulated",
        "spec": record_spec(made),
        "params": {"total": 1000, "trainable": 10, "trainable_fraction": 0.01},
        "memory": {
            "peak_allocated": 3 * 2**30,
            "peak_reserved": 4 * 2**30,
            "phases": {"forward": 3 * 2**30},
            "at_peak": {"activations": 3 * 2**30},
        },
        "time": {
            "source": "predicted",
            "step": 0.25,
            "phases": {"forward": 0.25},
            "tokens_per_second": 1.0,
        },
        "environment": environment(made.device),
    }
    return Record.from_dict({"schema": 1, **values, **changes})


def run(made: RunSpec, **options: Any) -> Record:
    """The job. The method's first word says what becomes of it."""
    word, _, rest = made.method.partition(" ")
    if word == "raise":
        raise RuntimeError("no\nluck")
    if word == "usage":
        raise UsageError("the target module matches nothing")
    if word == "exit":
        os._exit(7)
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "odd":
        raise OddError("left", "right")
    if word == "hang":
        Path(rest, str(os.getpid())).touch()
        threading.Event().wait()
    if word == "note":
        with Path(rest).open("a") as ran:
            ran.write(f"{made.seed}\n")
        return record(made, approximations=["x" * 100_000])
    if word == "meet":  # says that it is there and goes on when it may
        Path(rest, f"here {made.seed} {os.getppid()} {secrets.token_hex(4)}").touch()
        while not Path(rest, "go").exists():
            threading.Event().wait(0.02)
        return record(made)
    if word == "oom":
        return record(made, status="oom", source=rest or "simulated", error="does not fit")
    if word == "where":
        return record(made, error=str(os.getpid()))
    if word in ("failed", "refused", "unsupported"):
        return record(made, status=word, error="as asked")
    return record(made)


def check(made: RunSpec, *, here: bool = True) -> None:
    """In place of `profiler.resolve.check`."""
    if made.method == "unknown":
        raise UsageError("unknown method 'unknown'; did you mean lora?")


def resolve(made: RunSpec, *, here: bool = True) -> SimpleNamespace:
    """In place of `profiler.resolve.resolve`."""
    if made.method == "unresolvable":
        raise UsageError("no such option")
    if made.method == "unsupported":
        raise UnsupportedError("nothing to train")
    return SimpleNamespace(id=identity(made), record_spec=record_spec(made))


def build(
    records: Sequence[Record],
    output: Path,
    *,
    title: str,
    command: str = "",
    older: Sequence[Record] = (),
    baseline: str = "",
) -> Path:
    """In place of `profiler.report.build`."""
    page = output / "index.html"
    text = f"{title}: {command}: {[one.label for one in records]}"
    page.write_text(text, errors="backslashreplace")
    return page


def modules() -> dict[str, ModuleType]:
    """Stand-ins for the modules that need torch, by name, for `sys.modules`."""
    resolving, running = ModuleType("profiler.resolve"), ModuleType("profiler.execute")
    vars(resolving).update(check=check, resolve=resolve)
    vars(running).update(run=run)
    return {"profiler.resolve": resolving, "profiler.execute": running}


class OddError(Exception):
    """Cannot be unpickled: it wants two arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)
