"""The launch queue: what holds of any tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.launch_queue import Task, drain

SECONDS = st.sampled_from((0.0, 1e-6, 3e-6, 1e-5, 2e-4))
TASKS = st.lists(st.builds(Task, SECONDS, SECONDS, st.booleans()), max_size=30)


@given(TASKS, st.booleans(), SECONDS)
def test_a_step_takes_at_least_what_either_does(
    tasks: list[Task], queued: bool, before: float
) -> None:
    drained = drain(tasks, queued=queued, before=before)
    issue = before + sum(task.issue for task in tasks)
    work = sum(task.work for task in tasks)
    assert drained.total >= max(issue, work) - 1e-12
    assert drained.total <= issue + work + 1e-12


@given(TASKS, st.booleans(), SECONDS)
def test_work_idling_and_the_rest_make_up_the_step(
    tasks: list[Task], queued: bool, before: float
) -> None:
    drained = drain(tasks, queued=queued, before=before)
    idle = sum(slot.idle for slot in drained.slots)
    work = sum(slot.end - slot.start for slot in drained.slots)
    assert idle + work + drained.rest == pytest.approx(drained.total)
    assert min([slot.idle for slot in drained.slots] + [drained.rest]) >= 0


@given(TASKS, SECONDS)
def test_waiting_never_saves_time_and_a_queue_never_costs_any(
    tasks: list[Task], before: float
) -> None:
    free = [Task(task.issue, task.work) for task in tasks]
    least = drain(free, queued=True, before=before).total
    waiting = drain(tasks, queued=True, before=before).total
    alone = drain(free, queued=False, before=before).total
    assert least <= waiting + 1e-12
    assert waiting <= alone + 1e-12
    assert alone == pytest.approx(before + sum(task.issue + task.work for task in tasks))


def test_the_host_runs_ahead_until_it_asks_for_a_value() -> None:
    tasks = [Task(1.0, 10.0), Task(1.0, 10.0)]
    assert drain(tasks, queued=True).total == 21.0
    asks = [Task(1.0, 10.0, waits=True), Task(1.0, 10.0)]
    assert drain(asks, queued=True).total == 22.0
