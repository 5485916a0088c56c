"""Starts a hanging cell in each of two workers and waits for them: for a test to end it."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_cells

from profiler.runner import run_tasks
from profiler.store import Store

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tasks = [fake_cells.task(f"hang {folder}", seed=seed) for seed in range(2)]
    list(run_tasks(tasks, Store(folder / "store"), workers=2, job=fake_cells.run))
