"""A trace as the snapshot of `torch.cuda.memory._snapshot()`, for PyTorch's memory viewer.

The file opens at https://pytorch.org/memory_viz and with `python -m torch.cuda._memory_viz`. Its
form is described in torch/cuda/memory.py (`_snapshot`); the viewer is torch/utils/viz/MemoryViz.js.

What is not as torch writes it: an event's `size` is that of the whole block, so that the viewer's
figures are the record's (torch writes the request, which stands here in `requested_size`);
`time_us` is the event's number; and each event carries the block's `category`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from profiler.analysis import again
from profiler.analysis.alloc_conf import UNLIMITED, AllocConf
from profiler.export.about import about
from profiler.export.actions import Action, History, history
from profiler.record import Record
from profiler.trace import Block, Trace

#: The category of what has none. The viewer fails on a snapshot with categories but not this one.
_NONE = "unknown"

Frames = list[dict[str, Any]]


def render(record: Record, trace: Trace) -> bytes:
    """The pickled snapshot: plain types, in a protocol that the viewer reads."""
    return pickle.dumps(snapshot(record, trace), protocol=4)


def snapshot(record: Record, trace: Trace) -> dict[str, Any]:
    """The snapshot at the trace's end, with all that came before it as `device_traces`.

    Raises:
        UsageError: the record's GPU or allocator setting is none that this version knows.
    """
    conf = AllocConf.parse(str(record.spec.get("alloc_conf") or "") if trace.cuda else "")
    device = again.simulated_device(record.spec)
    made = history(trace, conf, device.usable_bytes if device is not None else None)
    writer = _Writer(trace, record.source)
    return {
        "segments": [writer.segment(segment, made.held) for segment in made.segments],
        "device_traces": [list(writer.events(made))],
        "allocator_settings": {**_settings(record, conf), "profiler": _about(record, trace)},
        "external_annotations": list(_annotations(trace)),
    }


class _Writer:
    """Makes the entries; equal parts are one object, which the pickle holds once."""

    def __init__(self, trace: Trace, source: str) -> None:
        self._trace = trace
        self._source = source
        self._frames: dict[tuple[str, ...], Frames] = {}
        self._words: dict[tuple[object, ...], str] = {}

    def segment(self, segment: Any, held: dict[int, int]) -> dict[str, Any]:
        """An entry of `segments`; its blocks tile it."""
        used = [block for block in segment.blocks if block.allocated]
        return {
            "device": 0,
            "address": segment.address,
            "total_size": segment.size,
            "allocated_size": sum(block.size for block in used),
            "active_size": sum(block.size for block in used),
            "requested_size": sum(block.requested for block in used),
            "stream": 0,
            "segment_type": "large" if segment.large else "small",
            "segment_pool_id": (0, 0),
            "is_expandable": segment.expandable,
            "frames": [],
            "blocks": [
                {
                    "address": block.address,
                    "size": block.size,
                    "requested_size": block.requested,
                    "state": "active_allocated" if block.allocated else "inactive",
                    "frames": self._frames_of(held[block.address]) if block.allocated else [],
                }
                for block in segment.blocks
            ],
        }

    def events(self, made: History) -> Iterator[dict[str, Any]]:
        """The entries of one device's trace, in order."""
        marks = iter([*self._trace.marks, None])
        following = next(marks)
        phase, step = "setup", 0
        for action in made.actions:
            while following is not None and following.event <= action.event:
                phase, step = following.phase, following.step
                following = next(marks)
            entry = self._entry(action, phase, step)
            if action.kind == "free":
                yield {**entry, "action": "free_requested"}
                yield {**entry, "action": "free_completed"}
            else:
                yield entry

    def _entry(self, action: Action, phase: str, step: int) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "action": action.kind,
            "addr": action.address,
            "size": action.size,
            "stream": 0,
            "time_us": action.event,
            "frames": [],
            "category": _NONE,
            "user_metadata": self._said(None, phase, step),
        }
        if action.kind == "oom":
            entry["device_free"] = entry.pop("addr")
        if action.block >= 0:
            block = self._trace.blocks[action.block]
            entry["requested_size"] = block.nbytes
            entry["category"] = block.category or _NONE
            entry["frames"] = self._frames_of(action.block)
            entry["user_metadata"] = self._said(block, phase, step)
        return entry

    def _frames_of(self, number: int) -> Frames:
        """The op at its source line, then the modules around it, innermost first, as a stack."""
        block = self._trace.blocks[number]
        key = (block.op, block.source, block.module, block.phase)
        frames = self._frames.get(key)
        if frames is None:
            file, _, line = block.source.rpartition(":")
            known = bool(file) and line.isdecimal()
            frames = [
                {
                    "filename": file if known else block.source,
                    "line": int(line) if known else 0,
                    "name": block.op,
                },
                *(
                    {"filename": path, "line": 0, "name": block.phase}
                    for path in _enclosing(block.module)
                ),
            ]
            self._frames[key] = frames
        return frames

    def _said(self, block: Block | None, phase: str, step: int) -> str:
        """What the viewer shows beside a stack."""
        key = (phase, step, block and block.dtype, block and block.shape)
        words = self._words.get(key)
        if words is None:
            when = f"{phase} of step {step}" if step else f"{phase} (before the measured steps)"
            what = f", {block.dtype} {' x '.join(map(str, block.shape))}" if block else ""
            words = self._words[key] = f"{self._source}, {when}{what}"
        return words


def _enclosing(module: str) -> list[str]:
    """A module's path and those around it, without lists of layers, which are never called.

    >>> _enclosing("model.layers.0.mlp")
    ['model.layers.0.mlp', 'model.layers.0', 'model']
    """
    parts = module.split(".") if module else []
    return [
        ".".join(parts[:end])
        for end in range(len(parts), 0, -1)
        if end == len(parts) or not parts[end].isdecimal()
    ]


def _settings(record: Record, conf: AllocConf) -> dict[str, Any]:
    """As torch/csrc/cuda/Module.cpp names them; no limit is -1 there."""
    return {
        "PYTORCH_CUDA_ALLOC_CONF": str(record.spec.get("alloc_conf") or ""),
        "max_split_size": -1 if conf.max_split_size == UNLIMITED else conf.max_split_size,
        "garbage_collection_threshold": conf.garbage_collection_threshold,
        "expandable_segments": conf.expandable_segments,
        "roundup_power2_divisions": {
            str(1 << power): steps for power, steps in enumerate(conf.roundup_power2_divisions)
        },
    }


def _about(record: Record, trace: Trace) -> dict[str, Any]:
    """What the viewer's page of settings says of where the snapshot comes from."""
    return {
        **about(record),
        "sizes": "whole blocks" if trace.cuda else "storages, each in a segment of its own",
        "time_us": "the number of the event, not a time",
    }


def _annotations(trace: Trace) -> Iterator[dict[str, Any]]:
    """Where each phase begins and ends, as torch's own annotations of a history."""
    for mark, after in zip(trace.marks, trace.marks[1:], strict=False):
        name = f"{mark.phase} of step {mark.step}"
        for stage, event in (("START", mark.event), ("END", after.event)):
            yield {"name": name, "stage": stage, "device": 0, "time_us": event}
