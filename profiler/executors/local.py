"""Worker processes on this machine, started by a fork server that has torch imported once."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

from profiler.executors.orphans import die_with_parent
from profiler.noise import hush

P = ParamSpec("P")
T = TypeVar("T")

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
        super().__init__(
            workers, mp_context=multiprocessing.get_context(_METHOD), initializer=_begin
        )
        self._others = set(multiprocessing.active_children())
        self._workers: dict[int, BaseProcess] = {}

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        for process in multiprocessing.active_children():
            if process not in self._others and process.pid is not None:
                self._workers[process.pid] = process
        return future

    def stop(self) -> str:
        """End all workers at once. Returns how the first dead one had ended, "" if none had."""
        ended = [process.exitcode for process in self._workers.values() if not process.is_alive()]
        for process in self._workers.values():
            process.kill()
        self.shutdown(wait=True, cancel_futures=True)
        return next((_ending(code) for code in ended if code), "")


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
