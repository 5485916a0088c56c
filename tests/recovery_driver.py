"""A sweep over cells that note that they ran, for a test to kill: `FOLDER WORKERS [VICTIM MOMENT]`.

At the MOMENT-th thing that the sweep's process does to a file in FOLDER or to another process (the
interpreter's audit events), the VICTIM ends by SIGKILL: the sweep itself, or a process below it
(a worker, the fork server that started it), MOMENT says which.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_cells
import psutil

from profiler.runner import Task, run_tasks
from profiler.store import Store

CELLS = 8

#: Moments that there are at least.
MOMENTS = 80


def tasks(folder: Path) -> list[Task]:
    return [fake_cells.task(f"note {folder / 'ran'}", seed=seed) for seed in range(CELLS)]


def sweep(folder: Path, workers: int) -> Sequence[Task]:
    """Run the sweep; the tasks that were run, not reused."""
    store = Store(folder)
    store.prepare()
    outcomes = run_tasks(tasks(folder), store, workers=workers, job=fake_cells.run)
    return [one.task for one in outcomes if not one.reused]


def _kill_at(moment: int, victim: str, folder: str) -> None:
    left = moment

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event.startswith(("socket.", "fcntl.")) or folder in str(arguments[:1]):
            left -= 1
            if left == 0:
                below = [] if victim == "sweep" else psutil.Process().children(recursive=True)
                pid = below[moment % len(below)].pid if below else os.getpid()
                os.kill(pid, signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        _kill_at(int(sys.argv[4]), sys.argv[3], sys.argv[1])
    sweep(Path(sys.argv[1]), int(sys.argv[2]))
