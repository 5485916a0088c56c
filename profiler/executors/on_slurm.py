"""Cells as jobs of a SLURM cluster, through submitit (the extra `slurm`)."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from profiler.errors import ProfilerError, UsageError
from profiler.executors import WorkerLostError, remote
from profiler.lines import one_line

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds between two looks at the jobs; submitit asks SLURM itself less often.
_LOOKS = {"slurm": 1.0, "local": 0.1}


@dataclass
class _Running:
    job: Any
    future: Future[Any]
    arguments: tuple[Any, ...]
    tries: int = 1


class SlurmExecutor(Executor):
    """Each task is a job, submitted again if it is lost.

    Args:
        folder: For the jobs' files, which all machines must see.
        parameters: submitit's (`timeout_min=60`, `slurm_partition=gpu`); `cluster=local` runs the
            jobs as processes of this machine.
        gpus: GPUs that a task has for itself, unless the parameters say otherwise.
        alone: Whether a task has all of a machine.

    Raises:
        UsageError: submitit is not installed, there is no SLURM here, or a parameter is not one.
    """

    #: Jobs in the queue at a time.
    slots = 100

    def __init__(
        self, folder: Path, parameters: Mapping[str, Any], *, gpus: int = 0, alone: bool = False
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise UsageError(
                "--executor slurm needs submitit; install it with: "
                "pip install 'peft-profiler[slurm]'"
            ) from None
        wanted: dict[str, Any] = {"name": "profiler", "cpus_per_task": 1}
        if gpus:
            wanted["gpus_per_node"] = gpus
        if alone:
            wanted["slurm_exclusive"] = True
        wanted |= parameters
        cluster = wanted.pop("cluster", "slurm")
        if cluster not in _LOOKS:
            raise UsageError(f"--slurm-args cluster={cluster}: it is slurm or local")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise UsageError(
                "--executor slurm: there is no SLURM on this machine (no sbatch in the path); "
                "--slurm-args cluster=local runs the jobs here"
            )
        try:
            self._jobs = submitit.AutoExecutor(folder, cluster=cluster)
            self._jobs.update_parameters(**wanted)
        except (NameError, TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UsageError(f"--slurm-args: {one_line(str(error))[:300]}") from None
        self._lost: type[BaseException] = submitit.core.utils.UncompletedJobError
        self._running: list[_Running] = []
        self._changed = threading.Lock()
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look, args=(_LOOKS[cluster],), daemon=True)
        self._watch.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        arguments = remote.packed(fn, args, kwargs)
        try:
            job = self._jobs.submit(remote.call, *arguments)
        except Exception as error:  # whatever sbatch says
            said = one_line(str(error))[:300]
            future.set_exception(ProfilerError(f"the job could not be submitted: {said}"))
            return future
        with self._changed:
            self._running.append(_Running(job, future, arguments))
        return future

    def stop(self) -> str:
        """Cancel the jobs that have not ended."""
        self._stopped.set()
        self._watch.join()
        for one in self._running:
            one.job.cancel(check=False)
        return ""

    def _look(self, interval: float) -> None:
        while not self._stopped.wait(interval):
            with self._changed:
                running = list(self._running)
            ended = [one for one in running if one.job.done() and self._ended(one)]
            with self._changed:
                self._running = [one for one in self._running if one not in ended]

    def _ended(self, one: _Running) -> bool:
        """Answer for a job that is done; False if it was submitted again."""
        try:
            answered = one.job.result()
        except self._lost as error:
            if one.tries <= remote.RETRIES:
                one.tries += 1
                one.job = self._jobs.submit(remote.call, *one.arguments)
                return False
            said = one_line(str(error))[:300]
            one.future.set_exception(WorkerLostError(f"the cell's job was lost: {said}"))
        except Exception as error:
            said = one_line(str(error))[-300:]
            one.future.set_exception(ProfilerError(f"the cell's job failed: {said}"))
        else:
            remote.answer(one.future, answered)
        return True
