"""Worker processes on this machine, started by a fork server that has torch imported once."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, cast

from profiler.executors.orphans import die_with_parent
from profiler.noise import hush

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def start_server(*, warm: bool = False) -> None:
    """Start the fork server if there is none yet.

    Args:
        warm: Let it import torch and the libraries, while this process does something else. The
            workers are then there in no time.
    """
    if _METHOD == "forkserver":
        modules = ["profiler.executors.server"]
        modules += ["profiler.executors.warm"] if warm else []
        multiprocessing.set_forkserver_preload(modules)
        forkserver.ensure_running()


class LocalExecutor(ProcessPoolExecutor):
    """A process pool whose workers leave nothing behind, however they or this process end."""

    def __init__(self, workers: int) -> None:
        start_server()
        self._made = _Made(multiprocessing.get_context(_METHOD))
        super().__init__(workers, mp_context=cast(BaseContext, self._made), initializer=_begin)

    def stop(self) -> str:
        """End all workers at once. Returns how the first of them ended that did not end well, ""
        if none did; of a pool with several workers that is not always the one that died first.

        Only the pool's own thread waits for a worker: a fork server tells once how one ended, and
        who asks second is told 255 (`multiprocessing.popen_forkserver`).
        """
        for process in self._made.processes:
            if process.pid is not None:
                process.kill()
        self.shutdown(wait=True, cancel_futures=True)
        codes = [process.exitcode for process in self._made.processes if process.pid is not None]
        return next((_ending(code) for code in codes if code), "")


class _Made:
    """A context of `multiprocessing` that knows the processes it made."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.processes: list[BaseProcess] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *args: Any, **kwargs: Any) -> BaseProcess:  # noqa: N802
        process: BaseProcess = self._context.Process(*args, **kwargs)
        self.processes.append(process)
        return process


def _begin() -> None:
    """First thing in a worker: the parent alone answers Ctrl-C."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hush()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return name + (", as when the system is out of memory" if name == "SIGKILL" else "")
