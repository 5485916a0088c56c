"""Runs the cells of a sweep: reuses what is stored, keeps each result as soon as it is there."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler import grid
from profiler.environment import environment
from profiler.errors import ProfilerError, StoreError, UsageError
from profiler.executors import LocalExecutor, executor
from profiler.hardware import devices
from profiler.record import Record, Source, Status
from profiler.spec import RunSpec
from profiler.store import Store

Job = Callable[[RunSpec], Record]


@dataclass(frozen=True)
class Task:
    """A cell to run. `id` is empty when the cell cannot be resolved but is run for its answer
    (a method that the model does not support)."""

    spec: RunSpec
    id: str = ""
    record_spec: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        return "measured" if self.spec.device in devices.MEASURED else "simulated"


@dataclass(frozen=True)
class Outcome:
    """What came of a task: a record, or the reason why it was wrong to ask for it.

    `kept` is false for a record that could not be stored.
    """

    task: Task
    record: Record | None
    usage_error: str = ""
    reused: bool = False
    kept: bool = True


def run_cell(
    spec: RunSpec,
    *,
    ignore_memory: bool = False,
    timeout: float | None = None,
    traces: Path | None = None,
    full_trace: bool = False,
) -> Record:
    """The job of one task, in whatever process it runs; the options as `profiler.execute.run`'s."""
    from profiler.execute import run

    if multiprocessing.parent_process() is not None:  # the workers share the cores
        import torch

        torch.set_num_threads(1)
    return run(
        spec,
        ignore_memory=ignore_memory,
        timeout=timeout,
        traces=traces,
        full_trace=full_trace,
    )


def plan(specs: Sequence[RunSpec]) -> list[Task]:
    """The tasks of `specs`; specs that resolve to the same cell are one task.

    Raises:
        UsageError: a spec cannot be resolved.
    """
    from profiler.resolve import resolve

    tasks: dict[str, Task] = {}
    for spec in specs:
        try:
            cell = resolve(spec)
        except UsageError as error:
            if len(specs) == 1:
                raise
            raise UsageError(f"{error} (in {grid.label(spec)})") from None
        except Exception:  # unsupported, or its own failure: the run gives it a record
            tasks[spec.to_json()] = Task(spec)
        else:
            tasks.setdefault(cell.id, Task(spec, cell.id, cell.record_spec))
    return list(tasks.values())


def run_tasks(
    tasks: Sequence[Task],
    store: Store,
    *,
    workers: int = 1,
    overwrite: bool = False,
    retry_failed: bool = False,
    keep_traces: bool = False,
    warn: Callable[[str], None] = lambda line: None,
    started: Callable[[Task], None] = lambda task: None,
    job: Job = run_cell,
) -> Generator[Outcome, None, None]:
    """Run tasks and yield each outcome as it comes: the reused ones first, the measured ones last.

    Measured tasks run one at a time, once nothing else runs any more: they would disturb each
    other's time and memory. What was refused for want of memory is always tried again.

    Closing the iterator (or Ctrl-C in it) ends all workers at once; what was yielded is stored.

    Args:
        workers: Processes that run simulated cells; 1 runs them in this one.
        overwrite: Run also what is stored.
        retry_failed: Run what is stored without a result.
        keep_traces: Run also what is stored without the trace of its run; `job` writes the traces.
        warn: Called with a line when a record cannot be read back or stored.
        started: Called with each task as it is given out.
        job: Runs one cell; a function at a module's top level.
    """
    pending = []
    traceless = 0
    for task in tasks:
        record, problem = (None, "") if overwrite else stored(task, store)
        again = record is not None and (
            record.status == "refused" or (retry_failed and not record.answered)
        )
        if keep_traces and record is not None and not again and not _has_trace(record, store):
            traceless += 1
            again = True
        if record is None or again:
            if problem:
                warn(f"{problem}; the cell runs again")
            pending.append(task)
        else:
            yield Outcome(task, record, reused=True)
    if traceless:
        cells = "1 cell is" if traceless == 1 else f"{traceless} cells are"
        warn(f"{cells} stored without a trace and will be run again to keep it")
    simulated = [task for task in pending if task.source == "simulated"]
    measured = [task for task in pending if task.source == "measured"]
    results = itertools.chain(
        _results(simulated, min(workers, len(simulated)), job, started),
        _results(measured, 1, job, started),
    )
    for task, result in results:
        if isinstance(result, UsageError):
            yield Outcome(task, None, usage_error=str(result))
            continue
        kept = True
        try:
            store.put(result)
            if not keep_traces or result.memory.peak_allocated is None:
                store.drop_trace(result)
        except StoreError as error:
            warn(str(error))
            kept = False
        if kept and keep_traces and not _has_trace(result, store):
            warn(f"{store.trace_path(result)} could not be written")
            kept = False
        yield Outcome(task, result, kept=kept)


def _has_trace(record: Record, store: Store) -> bool:
    """Whether a record's trace is kept; a run without a result has none to keep."""
    if record.memory.peak_allocated is None:
        return True
    return store.trace_path(record).is_file()


def stored(task: Task, store: Store) -> tuple[Record | None, str]:
    """The task's record if it is in the store, and why it cannot be read if that is so."""
    if not task.id:
        return None, ""
    try:
        record = store.get(task.id, environment(task.spec.device)["fingerprint"])
    except StoreError as error:
        return None, str(error)
    if record is not None and task.record_spec:
        # The same cell may have been typed in another way when it was stored.
        record = record.model_copy(update={"spec": task.record_spec})
    return record, ""


def _results(
    tasks: Sequence[Task], workers: int, job: Job, started: Callable[[Task], None]
) -> Iterator[tuple[Task, Record | UsageError]]:
    """Each task with its result, in the order in which they end.

    A dead worker breaks its whole pool, and nothing tells which task killed it. So no more tasks
    are given out than there are workers, and those that were running then run again, each alone.
    """
    waiting = deque(tasks)
    while waiting:
        suspects: list[Task] = []
        yield from _until_broken(waiting, suspects, workers, job, started)
        for task in suspects:
            started(task)
            yield task, _alone(task, job)


def _until_broken(
    waiting: deque[Task],
    suspects: list[Task],
    workers: int,
    job: Job,
    started: Callable[[Task], None],
) -> Iterator[tuple[Task, Record | UsageError]]:
    """Run what is `waiting`; if a worker dies, stop and leave what was running in `suspects`."""
    running: dict[Future[Record], Task] = {}
    pool = executor(workers)
    try:
        while waiting or running:
            while waiting and len(running) < workers and not suspects:
                task = waiting.popleft()
                started(task)
                try:
                    running[pool.submit(_guarded, job, task.spec)] = task
                except BrokenExecutor:
                    suspects.append(task)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                if isinstance(future.exception(), BrokenExecutor):
                    suspects.append(task)
                else:
                    yield task, _result(task, future)
    finally:
        pool.stop()


def _alone(task: Task, job: Job) -> Record | UsageError:
    """The result of a task in a process of its own, which it may take down with it."""
    pool = LocalExecutor(1)
    try:
        future = pool.submit(_guarded, job, task.spec)
        wait([future])
    finally:
        ending = pool.stop()
    if isinstance(future.exception(), BrokenExecutor):
        reason = f"the process that ran the cell died: {ending or 'no reason is known'}"
        return _without_result(task, "crashed", reason)
    return _result(task, future)


def _result(task: Task, future: Future[Record]) -> Record | UsageError:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, UsageError):
        return error
    return _without_result(task, "failed", str(error) or type(error).__name__)


def _guarded(job: Job, spec: RunSpec) -> Record:
    """What a worker runs. Errors become plain ones: not every exception survives the way back."""
    try:
        return job(spec)
    except ProfilerError:
        raise
    except Exception as error:
        raise ProfilerError(f"{type(error).__name__}: {error}") from None


def _without_result(task: Task, status: Status, error: str) -> Record:
    """The record of a cell that gave none itself."""
    digest = hashlib.sha256(task.spec.to_json().encode()).hexdigest()[:12]
    return Record(
        id=task.id or f"unresolved-{digest}",
        status=status,
        error=" ".join(error.split()),
        source=task.source,
        spec=task.record_spec or task.spec.to_dict(),
        environment=environment(task.spec.device),
    )
