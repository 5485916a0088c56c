"""Runs the cells of a sweep: reuses what is stored, keeps each result as soon as it is there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from profiler import dispatch, grid
from profiler.dispatch import Desk
from profiler.environment import decisive, environment
from profiler.errors import StoreError, UsageError
from profiler.executors import Pool, executor
from profiler.executors.elsewhere import Elsewhere
from profiler.hardware import devices
from profiler.record import Record, Source
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


def plan(specs: Sequence[RunSpec], *, here: bool = True) -> list[Task]:
    """The tasks of `specs`; specs that resolve to the same cell are one task.

    Args:
        here: Whether they will run on this machine.

    Raises:
        UsageError: a spec cannot be resolved.
    """
    from profiler.resolve import resolve

    tasks: dict[str, Task] = {}
    for spec in specs:
        try:
            cell = resolve(spec, here=here)
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
    elsewhere: Elsewhere | None = None,
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

    A task is claimed while it runs: another run of tasks on the same store, here or on another
    machine, does something else meanwhile and then takes the record as its own.

    Closing the iterator (or Ctrl-C in it) ends all workers at once; what was yielded is stored.

    Args:
        workers: Processes that run simulated cells; 1 runs them in this one.
        elsewhere: Where cells run, if not on this machine. A record of any machine with this one's
            libraries is then a cell's record.
        overwrite: Run also what is stored.
        retry_failed: Run what is stored without a result.
        keep_traces: Run also what is stored without the trace of its run; `job` writes the traces.
        warn: Called with a line when a record cannot be read back or stored.
        started: Called with each task as it is given out.
        job: Runs one cell; a function at a module's top level.
    """
    look: Callable[[Task], tuple[Record | None, str]] = partial(stored, store=store)
    if elsewhere is not None:
        look = partial(_stored_by_any, store=store, by_id=store.fingerprints())
    found: dict[int, Record] = {}

    def again(record: Record) -> bool:
        return record.status == "refused" or (retry_failed and not record.answered)

    def done(task: Task) -> Record | None:
        record = None if overwrite else look(task)[0]
        if record is None or record == found.get(id(task)) or again(record):
            return None
        return None if keep_traces and not _has_trace(record, store) else record

    pending = []
    traceless = 0
    for task in tasks:
        record, problem = (None, "") if overwrite else look(task)
        if problem:
            warn(f"{problem}; the cell runs again")
        if record is not None:
            lacks_trace = keep_traces and not again(record) and not _has_trace(record, store)
            if not lacks_trace and not again(record):
                yield Outcome(task, record, reused=True)
                continue
            traceless += lacks_trace
            found[id(task)] = record
        pending.append(task)
    if traceless:
        cells = "1 cell is" if traceless == 1 else f"{traceless} cells are"
        warn(f"{cells} stored without a trace and will be run again to keep it")
    desk = Desk(store, done, warn)
    pools = _pools(pending, workers, elsewhere)
    with closing(desk), closing(_results(pools, desk, job, started)) as results:
        for task, result, reused in results:
            if isinstance(result, UsageError):
                outcome = Outcome(task, None, usage_error=str(result))
            elif reused:
                outcome = Outcome(task, result, reused=True)
            else:
                kept = _keep(result, store, keep_traces, warn)
                outcome = Outcome(task, result, kept=kept)
            desk.hand_back(task)
            yield outcome


def _pools(
    tasks: Sequence[Task], workers: int, elsewhere: Elsewhere | None
) -> Iterator[tuple[list[Task], Callable[[], Pool]]]:
    """The tasks that run beside each other, with what makes their executor."""
    simulated = [task for task in tasks if task.source == "simulated"]
    if elsewhere is not None:
        yield simulated, partial(elsewhere.pool, "")
        for device in devices.MEASURED:
            on_it = [task for task in tasks if task.spec.device == device]
            yield on_it, partial(elsewhere.pool, device)
        return
    yield simulated, partial(executor, min(workers, len(simulated)))
    yield [task for task in tasks if task.source == "measured"], partial(executor, 1)


def _results(
    pools: Iterable[tuple[list[Task], Callable[[], Pool]]],
    desk: Desk,
    job: Job,
    started: Callable[[Task], None],
) -> Generator[dispatch.Result, None, None]:
    for tasks, pool in pools:
        yield from dispatch.results(tasks, pool, desk, job, started)


def _keep(record: Record, store: Store, keep_traces: bool, warn: Callable[[str], None]) -> bool:
    """Store a record; whether all of it is stored."""
    try:
        store.put(record)
        if not keep_traces or record.memory.peak_allocated is None:
            store.drop_trace(record)
    except StoreError as error:
        warn(str(error))
        return False
    if keep_traces and not _has_trace(record, store):
        warn(f"{store.trace_path(record)} could not be written")
        return False
    return True


def _has_trace(record: Record, store: Store) -> bool:
    """Whether a record's trace is kept; a run without a result has none to keep."""
    if record.memory.peak_allocated is None:
        return True
    return store.trace_path(record).is_file()


def stored(task: Task, store: Store, fingerprint: str | None = None) -> tuple[Record | None, str]:
    """The task's record if it is in the store, and why it cannot be read if that is so.

    Args:
        fingerprint: Of the environment that made it, by default this one.
    """
    if not task.id:
        return None, ""
    try:
        record = store.get(task.id, fingerprint or environment(task.spec.device)["fingerprint"])
    except StoreError as error:
        return None, str(error)
    if record is not None and task.record_spec:
        # The same cell may have been typed in another way when it was stored.
        record = record.model_copy(update={"spec": task.record_spec})
    return record, ""


def _stored_by_any(
    task: Task, store: Store, by_id: Mapping[str, Sequence[str]]
) -> tuple[Record | None, str]:
    """As `stored`, of any machine with the libraries that this one has."""
    record, problem = stored(task, store)
    if record is not None or task.spec.device not in (*devices.MEASURED, "sim:cpu"):
        return record, problem
    here = environment()
    for fingerprint in by_id.get(task.id, ()):
        record, _ = stored(task, store, fingerprint)
        if record is not None and all(
            record.environment.get(name) == here[name] for name in decisive("")
        ):
            return record, ""
    return None, problem
