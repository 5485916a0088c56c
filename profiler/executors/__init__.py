"""Where cells run: executors of `concurrent.futures`, so that another kind is one more file."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Protocol, TypeVar

from profiler.errors import ProfilerError
from profiler.executors.local import LocalExecutor
from profiler.executors.serial import SerialExecutor

__all__ = ["LocalExecutor", "Pool", "SerialExecutor", "WorkerLostError", "executor"]

P = ParamSpec("P")
T = TypeVar("T")


class Pool(Protocol):
    """What a sweep asks of an executor.

    A worker that dies makes its future's exception a `WorkerLostError`; of an executor that is no
    good any more then, a `BrokenExecutor`, as all its other futures'.
    """

    @property
    def slots(self) -> int:
        """How many tasks it can make use of at a time."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `concurrent.futures.Executor.submit`."""

    def stop(self) -> str:
        """End everything at once; how a worker ended that did not end well, "" if none did."""


class WorkerLostError(ProfilerError):
    """The process that ran a cell died, as often as the cell was tried."""


def executor(workers: int) -> LocalExecutor | SerialExecutor:
    """An executor of `workers` processes; one worker is this process."""
    return LocalExecutor(workers) if workers > 1 else SerialExecutor()
