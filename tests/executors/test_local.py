"""Worker processes: how one ended is known, however often."""

from __future__ import annotations

import os
from concurrent.futures import BrokenExecutor, wait

import pytest

from profiler.executors.local import LocalExecutor

#: Of as many workers some were told to have ended with 255, when two threads waited for them.
DEATHS = 60


@pytest.mark.parametrize("number", [7, 3])
def test_how_a_worker_ended_is_told_rightly(number: int) -> None:
    told = set()
    for _ in range(DEATHS // 2):
        pool = LocalExecutor(1)
        try:
            future = pool.submit(os._exit, number)
            wait([future])
        finally:
            told.add(pool.stop())
        assert isinstance(future.exception(), BrokenExecutor)
    assert told == {f"exit code {number}"}
