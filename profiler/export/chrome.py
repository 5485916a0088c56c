"""A trace in the Trace Event Format, for https://ui.perfetto.dev and chrome://tracing.

Steps, phases and ops are complete events on tracks of their own, allocated bytes by category and
reserved bytes are counters. The format: "Trace Event Format", Google, 2016
(https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from profiler.analysis import again
from profiler.export import clock
from profiler.export.about import about
from profiler.record import Record
from profiler.trace import Op, Trace

_PROCESS = 1
_STEPS, _PHASES = 1, 2
#: Tracks of ops by phase; another phase's ops (loading) have the last.
_OPS = {"forward": 3, "backward": 4, "optimizer": 5}
_OTHER = 6

Event = dict[str, Any]


def render(record: Record, trace: Trace) -> str:
    """The document as JSON text."""
    return json.dumps(document(record, trace), separators=(",", ":"))


def document(record: Record, trace: Trace) -> dict[str, Any]:
    """The JSON object format of a trace: `traceEvents` and what they are.

    Raises:
        UsageError: the record's GPU or allocator setting is none that this version knows.
    """
    seconds, meaning = clock.durations(record, trace)
    spans = list(clock.spans(trace, seconds))
    said = {
        **about(record),
        "time": meaning,
        "memory": "bytes of the allocator's blocks" if trace.cuda else "bytes of storages",
    }
    cell = f"{said['method']}, {said['model']} on {said['device']}, {said['workload']}"
    events = [
        *_names(f"{record.source}: {cell} (time {meaning.partition(':')[0]})", spans),
        *_tracks(spans),
        *_counters(record, trace, spans),
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": said}


def _names(process: str, spans: list[clock.Span]) -> Iterator[Event]:
    yield _meta("process_name", 0, {"name": process})
    used = {_op_track(span.phase) for span in spans if span.ops}
    tracks = {_STEPS: "steps", _PHASES: "phases"}
    tracks |= {track: f"ops: {phase}" for phase, track in _OPS.items() if track in used}
    tracks |= {_OTHER: "ops: before the steps"} if _OTHER in used else {}
    for track, name in tracks.items():
        yield _meta("thread_name", track, {"name": name})
        yield _meta("thread_sort_index", track, {"sort_index": track})


def _tracks(spans: list[clock.Span]) -> Iterator[Event]:
    """Steps, phases and ops as complete events, each track in the order of time."""
    steps: dict[str, list[int]] = {}
    for span in spans:
        name = _step_name(span)
        steps.setdefault(name, [span.start, span.stop])[1] = span.stop
    for name, (start, stop) in steps.items():
        yield _complete(name, "step", _STEPS, start, stop, {})
    for span in spans:
        detail = {"step": span.step, "first_event": span.first, "events": span.end - span.first}
        yield _complete(span.phase, "phase", _PHASES, span.start, span.stop, detail)
    for span in spans:
        track = _op_track(span.phase)
        for op, start, stop in span.ops:
            yield _complete(op.name, op.phase, track, start, stop, _details(op))


def _details(op: Op) -> dict[str, Any]:
    return {
        "step": op.step,
        "module": op.module,
        "flops": op.flops,
        "bytes": op.nbytes,
        "dtype": op.dtype,
        "recompute": op.recompute,
    }


def _counters(record: Record, trace: Trace, spans: list[clock.Span]) -> Iterator[Event]:
    """Levels after each event that changes one. Counters belong to the process."""
    level = again.levels(trace, record.spec)
    by_category: dict[str, int] = {}
    allocated = reserved = -1
    for span in spans:
        for place, now in enumerate(span.times, span.first):
            event = trace.events[place]
            if event:
                number = abs(event) - 1
                category = trace.blocks[number].category
                size = level.sizes[number] if event > 0 else -level.sizes[number]
                if size:
                    by_category[category] = by_category.get(category, 0) + size
                    yield _counter(f"allocated: {category}", now, by_category[category])
            if level.allocated[place] != allocated:
                allocated = level.allocated[place]
                yield _counter("allocated", now, allocated)
            if level.reserved is not None and level.reserved[place] != reserved:
                reserved = level.reserved[place]
                yield _counter("reserved", now, reserved)


def _op_track(phase: str) -> int:
    return _OPS.get(phase, _OTHER)


def _step_name(span: clock.Span) -> str:
    if span.step:
        return f"step {span.step}"
    return "warm-up" if span.phase in _OPS else "before the steps (in order, without a time)"


def _meta(kind: str, track: int, arguments: dict[str, Any]) -> Event:
    return {"ph": "M", "name": kind, "pid": _PROCESS, "tid": track, "ts": 0, "args": arguments}


def _complete(
    name: str, category: str, track: int, start: int, stop: int, arguments: dict[str, Any]
) -> Event:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": _PROCESS,
        "tid": track,
        "ts": start / 1000,
        "dur": (stop - start) / 1000,
        "args": arguments,
    }


def _counter(name: str, now: int, nbytes: int) -> Event:
    return {
        "ph": "C",
        "name": name,
        "pid": _PROCESS,
        "tid": 0,
        "ts": now / 1000,
        "args": {"bytes": nbytes},
    }
