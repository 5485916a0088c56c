"""What is compared: each metric by name, and where a record holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from profiler.errors import unknown
from profiler.record import Memory, Params, Record

Kind = Literal["bytes", "seconds", "count"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a record: `read` gives it, or None where the record does not hold it."""

    name: str
    label: str
    kind: Kind
    read: Callable[[Record], float | None]


def _memory(name: str, label: str) -> Metric:
    assert name in Memory.model_fields
    return Metric(name, label, "bytes", lambda record: getattr(record.memory, name))


def _phase(name: str) -> Metric:
    return Metric(
        f"phases.{name}",
        f"peak allocated in {name}",
        "bytes",
        lambda record: record.memory.phases.get(name),
    )


def _params(name: str, label: str, kind: Kind = "count") -> Metric:
    assert name in Params.model_fields
    return Metric(f"params.{name}", label, kind, lambda record: getattr(record.params, name, None))


def _load(record: Record) -> int | None:
    return getattr(record.memory.load, "after_allocated", None)


def _history(name: str, label: str) -> Metric:
    return Metric(
        f"history.{name}",
        label,
        "bytes",
        lambda record: getattr(record.memory.history, name, None),
    )


METRICS = {
    metric.name: metric
    for metric in (
        _memory("peak_allocated", "peak allocated"),
        _memory("peak_reserved", "peak reserved"),
        _memory("after_step_allocated", "allocated after a step"),
        _memory("device_total", "device total"),
        _memory("load_peak", "peak while loading"),
        _phase("forward"),
        _phase("backward"),
        _phase("optimizer"),
        Metric("load.after_allocated", "allocated after loading", "bytes", _load),
        _history("reserved_mean", "mean reserved"),
        _history("after_step_mean", "mean allocated after a step"),
        _params("total", "parameters"),
        _params("trainable", "trainable parameters"),
        _params("adapter_file_bytes", "adapter file", "bytes"),
        Metric(
            "time.step", "step time", "seconds", lambda record: getattr(record.time, "step", None)
        ),
    )
}


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UsageError: there is none.
    """
    try:
        return METRICS[name]
    except KeyError:
        raise unknown("metric", name, METRICS) from None
