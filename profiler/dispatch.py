"""Gives tasks out to an executor and takes what comes back, whoever dies meanwhile."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TYPE_CHECKING, TypeAlias

from profiler.environment import environment
from profiler.errors import ProfilerError, UsageError
from profiler.executors import LocalExecutor, Pool, WorkerLostError
from profiler.executors.local import UNKNOWN
from profiler.locks import Claim
from profiler.record import Record, Status
from profiler.spec import RunSpec
from profiler.store import Store

if TYPE_CHECKING:
    from profiler.runner import Job, Task

#: Seconds to wait before each try to run a task alone: a fork server that was just killed is still
#: taken for alive.
_PATIENCE = (0.0, 0.1, 1.0)

#: A task, what came of it, and whether that is another process's record.
Result: TypeAlias = "tuple[Task, Record | UsageError, bool]"


class Desk:
    """Where tasks are handed out: each to one process at a time, and none that is done.

    Args:
        store: What the processes share.
        done: The record of a task that another process has stored since this one looked.
        warn: Called with a line when there is nothing to do but to wait for other processes.
    """

    def __init__(
        self, store: Store, done: Callable[[Task], Record | None], warn: Callable[[str], None]
    ) -> None:
        self._store = store
        self.done = done
        self._warn = warn
        self._waited = False
        self._claims: dict[str, Claim] = {}

    def take(self, task: Task, *, wait: bool = False) -> bool:
        """Claim a task; False if another process has it, which `wait` waits for."""
        if not task.id:  # what has no name is nobody else's
            return True
        claim = self._store.claim(task.id)
        if claim is None and wait:
            if not self._waited:
                self._warn("what is left is being run by another process; waiting for it")
            self._waited = True
            claim = self._store.claim(task.id, wait=True)
        if claim is not None:
            self._claims[task.id] = claim
        return claim is not None

    def hand_back(self, task: Task) -> None:
        """Say that nothing is done with a task any more."""
        claim = self._claims.pop(task.id, None)
        if claim is not None:
            claim.release()

    def close(self) -> None:
        """Hand everything back."""
        while self._claims:
            self._claims.popitem()[1].release()


def results(
    tasks: Sequence[Task],
    pool: Callable[[], Pool],
    desk: Desk,
    job: Job,
    started: Callable[[Task], None],
) -> Generator[Result, None, None]:
    """Each task with its result, in the order in which they end. A task with one of this process's
    is still claimed.

    A dead worker breaks its whole local pool, and nothing tells which task killed it. So no more
    tasks are given out than there are workers, and those that were running then run again, each
    alone.

    Args:
        pool: Makes the executor; a new one when one is broken.
    """
    waiting = deque(tasks)
    while waiting:
        suspects: list[Task] = []
        yield from _until_broken(waiting, suspects, pool(), desk, job, started)
        for task in suspects:
            started(task)
            yield task, _alone(task, job), False


def _until_broken(
    waiting: deque[Task],
    suspects: list[Task],
    pool: Pool,
    desk: Desk,
    job: Job,
    started: Callable[[Task], None],
) -> Generator[Result, None, None]:
    """Run what is `waiting`; if a worker dies, stop and leave what was running in `suspects`."""
    running: dict[Future[Record], Task] = {}
    taken: deque[Task] = deque()  # by other processes
    try:
        while waiting or running:
            while waiting and len(running) < pool.slots and not suspects:
                task = waiting.popleft()
                if not desk.take(task, wait=not (waiting or running)):
                    taken.append(task)
                    continue
                record = desk.done(task)
                if record is not None:
                    desk.hand_back(task)
                    yield task, record, True
                    continue
                started(task)
                try:
                    running[pool.submit(_guarded, job, task.spec)] = task
                except BrokenExecutor:
                    suspects.append(task)
            if running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    if isinstance(future.exception(), BrokenExecutor):
                        suspects.append(task)
                    else:
                        yield task, _result(task, future), False
            waiting.extendleft(reversed(taken))
            taken.clear()
            if suspects and not running:
                return
    finally:
        pool.stop()


def _alone(task: Task, job: Job) -> Record | UsageError:
    """The result of a task in a process of its own, which it may take down with it.

    Where no process can be started, or its fork server dies (then nobody knows how it ended), that
    is not the cell's doing: it is tried again.
    """
    reason = ""
    for wait_before in _PATIENCE:
        time.sleep(wait_before)
        pool = LocalExecutor(1)
        try:
            future = pool.submit(_guarded, job, task.spec)
            wait([future])
        except BrokenExecutor as error:
            reason = str(error)
            continue
        finally:
            ending = pool.stop()
        if not isinstance(future.exception(), BrokenExecutor):
            return _result(task, future)
        reason = f"the process that ran the cell died: {ending or 'no reason is known'}"
        if ending not in ("", UNKNOWN):
            break
    return without_result(task, "crashed", reason)


def _result(task: Task, future: Future[Record]) -> Record | UsageError:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, UsageError):
        return error
    status: Status = "crashed" if isinstance(error, WorkerLostError) else "failed"
    return without_result(task, status, str(error) or type(error).__name__)


def _guarded(job: Job, spec: RunSpec) -> Record:
    """What a worker runs. Errors become plain ones: not every exception survives the way back."""
    try:
        return job(spec)
    except ProfilerError:
        raise
    except Exception as error:
        raise ProfilerError(f"{type(error).__name__}: {error}") from None


def without_result(task: Task, status: Status, error: str) -> Record:
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
