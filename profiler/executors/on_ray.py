"""Cells on the machines of a Ray cluster (the extra `ray`)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from profiler.errors import UsageError
from profiler.executors import WorkerLostError, remote
from profiler.lines import one_line

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds within which a cluster must answer a connection.
_ANSWER = 10.0


class RayExecutor(Executor):
    """Each task is a Ray task of one CPU, run again elsewhere if its node is lost.

    Args:
        address: Of the cluster; None: that of `RAY_ADDRESS`, else one is started on this machine.
        gpus: GPUs that a task has for itself.
        alone: Whether a task has all of a machine, of those with the most CPUs.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str | None = None, *, gpus: int = 0, alone: bool = False) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # The workers see the GPUs they are given, none if none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        try:
            import ray
        except ImportError:
            raise UsageError(
                "--executor ray needs Ray; install it with: pip install 'peft-profiler[ray]'"
            ) from None
        self._ray = ray
        if address is not None:
            _see(address)
        try:
            ray.init(
                address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--address {address}: no Ray cluster to be reached: {one_line(str(error))[:200]}"
            ) from None
        self._refs: set[Any] = set()
        self._call = ray.remote(remote.call).options(
            num_cpus=self._most_cpus() if alone else 1,
            num_gpus=gpus,
            max_retries=remote.RETRIES,
            scheduling_strategy="SPREAD",
        )

    @property
    def slots(self) -> int:
        """Twice the cluster's CPUs as they are now, so that none waits for this process."""
        return max(1, 2 * int(self._ray.cluster_resources().get("CPU", 0)))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        ref = self._call.remote(*remote.packed(fn, args, kwargs))
        self._refs.add(ref)
        ref.future().add_done_callback(partial(self._ended, future, ref))
        return future

    def stop(self) -> str:
        """Cancel what runs and leave the cluster; one that was started for this ends."""
        for ref in list(self._refs):
            self._ray.cancel(ref, force=True)
        self._ray.shutdown()
        return ""

    def _ended(self, future: Future[Any], ref: Any, done: Future[Any]) -> None:
        self._refs.discard(ref)
        error = done.exception()
        if error is None:
            remote.answer(future, done.result())
        else:
            kind, said = type(error).__name__, one_line(str(error))[:300]
            future.set_exception(WorkerLostError(f"Ray lost the cell's worker: {kind}: {said}"))

    def _most_cpus(self) -> int:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return max(int(resources.get("CPU", 0)) for resources in nodes) or 1


def _see(address: str) -> None:
    """Raise unless something answers there: Ray itself asks for minutes before it gives up."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        return  # "auto", "local"
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: no Ray cluster to be reached: {error}") from None
