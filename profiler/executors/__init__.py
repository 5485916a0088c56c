"""Where cells run: executors of `concurrent.futures`, so that another kind is one more file."""

from __future__ import annotations

from profiler.executors.local import LocalExecutor
from profiler.executors.serial import SerialExecutor

__all__ = ["LocalExecutor", "SerialExecutor", "executor"]


def executor(workers: int) -> LocalExecutor | SerialExecutor:
    """An executor of `workers` processes; one worker is this process."""
    return LocalExecutor(workers) if workers > 1 else SerialExecutor()
