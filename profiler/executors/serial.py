"""Runs each task in this process, at once: nothing to start, and a debugger can look in."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class SerialExecutor(Executor):
    """`submit` returns when the task is done. Ctrl-C stops the task and goes on to the caller."""

    slots = 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: a cell does not end the sweep
            future.set_exception(error)
        return future

    def stop(self) -> str:
        """Nothing runs any more when `submit` has returned."""
        return ""
