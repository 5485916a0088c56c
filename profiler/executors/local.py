"""Worker processes on this machine, started by a fork server that has torch imported once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar, cast

from profiler.executors.orphans import PARENT, die_with_parent
from profiler.noise import hush

P = ParamSpec("P")
T = TypeVar("T")

#: How a worker ended whose fork server is gone (`multiprocessing.popen_forkserver`).
UNKNOWN = "exit code 255"

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
        os.environ[PARENT] = str(os.getpid())
        forkserver.ensure_running()


class LocalExecutor(ProcessPoolExecutor):
    """A process pool whose workers leave nothing behind, however they or this process end."""

    def __init__(self, workers: int) -> None:
        start_server()
        self.slots = workers
        self._made = _Made(multiprocessing.get_context(_METHOD))
        super().__init__(workers, mp_context=cast(BaseContext, self._made), initializer=_begin)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As any executor's; `BrokenProcessPool` also where a worker or the fork server dies just
        while the pool starts another worker, of which it makes an `OSError` or an `EOFError`."""
        try:
            return super().submit(fn, *args, **kwargs)
        except (OSError, EOFError) as error:
            raise BrokenProcessPool(f"no worker could be started: {error}") from None

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
    """First thing in a worker: the parent alone answers Ctrl-C.

    The worker's parent is the fork server, whose parent is the sweep. Each looks whether it has
    lost its own before it could be told of that.
    """
    server = sys.modules.get("profiler.executors.server")  # there if the server is one of ours
    die_with_parent(None if server is None else server.PID)
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
