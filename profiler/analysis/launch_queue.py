"""The launch queue: the host issues work one after another, the device works it off in that order.

The host is ahead of the device or behind it. A kernel begins when it has been issued and the one
before it is done; a device without work idles until the next launch. Where the host asks for a
value it waits until the device has done all that was issued. A step is over when both are done.

A machine that has no queue (a CPU) does both itself: the work follows its own issue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """`issue`: seconds of the host until it is launched; `work`: seconds of the device.

    `waits` says that the host then waits until the device is done.
    """

    issue: float
    work: float
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """When a task runs: the device idles from the task before until `start`, works until `end`."""

    idle: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Drained:
    """A step. `rest` is what the host still does when the device is done: idle, too.

    `total` is the sum of all work, all idling and the rest.
    """

    slots: list[Slot]
    rest: float
    total: float


def drain(tasks: Iterable[Task], *, queued: bool, before: float = 0.0) -> Drained:
    """Run tasks in their order.

    Args:
        queued: whether the host goes on while the device works.
        before: seconds of the host before the first task.
    """
    host, device = before, 0.0
    slots = []
    for task in tasks:
        host += task.issue
        start = max(host, device) if task.work else device
        slots.append(Slot(start - device, start, start + task.work))
        device = start + task.work
        if task.waits or not queued:
            host = max(host, device)
    total = max(host, device)
    return Drained(slots, total - device, total)
