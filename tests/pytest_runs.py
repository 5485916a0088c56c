"""Runs of pytest in a folder, as a user types them, each in a fork of a process with the libraries.

In a module of its own, so that the forked process can import it.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from profiler.executors.local import start_server

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
#: Other plugins take seconds to import, and pytest warns that it cannot rewrite what is imported.
_LEFT_OUT = ("cacheprovider", "hypothesispytest", "xdist", "xdist.looponfail", "benchmark", "anyio")
_QUICK = ["-W", "ignore::pytest.PytestAssertRewriteWarning", *(f"-pno:{one}" for one in _LEFT_OUT)]


@dataclass(frozen=True)
class Run:
    """How a run of pytest ended, and all that it printed."""

    code: int | None
    output: str


def install(folder: Path) -> Path:
    """A folder for `sys.path` in which the package is installed, with its entry points."""
    info = folder / "peft_profiler-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peft-profiler\nVersion: 0\n")
    groups = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


class Pytest:
    """Runs `pytest ARGUMENTS` in a folder, one fork each of a process that has imported all.

    Args:
        installed: what `install` gave.
        model: a model that the process builds once, as that imports the rest.
    """

    def __init__(self, installed: Path, model: str) -> None:
        start_server(warm=True)
        context = multiprocessing.get_context("forkserver")
        self._output = installed / "output.txt"
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, str(installed), str(self._output), model)
        )
        self._process.start()
        theirs.close()

    def __call__(self, folder: Path, arguments: Sequence[str]) -> Run:
        self._pipe.send((str(folder), list(arguments)))
        return Run(self._pipe.recv(), self._output.read_text())

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, installed: str, output: str, model: str) -> None:
    import datasets  # noqa: F401
    import pytest  # noqa: F401
    from transformers import Trainer  # noqa: F401

    import profiler.diff_text  # noqa: F401
    from profiler.resolve import resolve
    from profiler.spec import RunSpec
    from profiler.subject.subject import build

    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # of the pytest that runs this
    os.environ["COLUMNS"] = "100"
    sys.path.insert(0, installed)
    # No step is run, as the autograd engine does not survive a fork.
    build(resolve(RunSpec(model=model, seq_len=16)), load=None)
    gc.freeze()  # pytest collects garbage several times, and would walk all of it
    with contextlib.suppress(EOFError):
        while True:
            folder, arguments = pipe.recv()
            pid = os.fork()
            if not pid:
                _run(folder, output, arguments)
            pipe.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _run(folder: str, output: str, arguments: list[str]) -> None:
    """Run pytest and end the process."""
    code = 99
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (
            open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            for number in (1, 2)
        )
        os.chdir(folder)
        import pytest

        code = int(pytest.main([*_QUICK, *arguments]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
