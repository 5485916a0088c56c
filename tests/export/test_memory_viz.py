"""Snapshots that PyTorch's own reader takes, and whose sums are the record's."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import given
from torch.cuda import _memory_viz
from traces import traces

from profiler.analysis import again
from profiler.analysis.alloc_conf import AllocConf
from profiler.export import memory_viz
from profiler.export.actions import history
from profiler.record import Record
from profiler.trace import CATEGORIES, PHASES, Trace

NAMES = ["card", "expandable", "oom", "cpu"]
Pairs = Callable[[str], tuple[Record, Trace]]

#: Opcodes that the viewer's reader knows (torch/utils/viz/MemoryViz.js, `unpickleData`).
OPCODES = """
APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE
FRAME LONG1 LONG_BINGET MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO SETITEM SETITEMS SHORT_BINUNICODE
STOP TUPLE TUPLE1 TUPLE2 TUPLE3
"""

#: The largest integer that a number of JavaScript holds exactly.
_SAFE = 2**53 - 1


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise AssertionError(f"{module}.{name} is no plain type")


def loaded(data: bytes) -> dict[str, Any]:
    snapshot = _Plain(io.BytesIO(data)).load()
    assert isinstance(snapshot, dict)
    return snapshot


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, pair: Pairs) -> tuple[Record, Trace, dict[str, Any]]:
    record, trace = pair(request.param)
    return record, trace, loaded(memory_viz.render(record, trace))


def replayed(snapshot: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """(event, allocated, reserved) after each entry, by the entries alone."""
    allocated = reserved = 0
    for entry in snapshot["device_traces"][0]:
        if entry["action"] == "alloc":
            allocated += entry["size"]
        elif entry["action"] == "free_completed":
            allocated -= entry["size"]
        elif entry["action"] in ("segment_alloc", "segment_map"):
            reserved += entry["size"]
        elif entry["action"] in ("segment_free", "segment_unmap"):
            reserved -= entry["size"]
        yield entry["time_us"], allocated, reserved


def test_the_viewer_can_read_the_pickle(pair: Pairs) -> None:
    record, trace = pair("card")
    used = set()
    for opcode, argument, _ in pickletools.genops(memory_viz.render(record, trace)):
        used.add(opcode.name)
        if isinstance(argument, int) and opcode.name == "LONG1":
            assert abs(argument) <= _SAFE
    assert used <= set(OPCODES.split())


def test_its_active_memory_is_the_records_at_the_end(
    case: tuple[Record, Trace, dict[str, Any]],
) -> None:
    record, trace, snapshot = case
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    active = [block["size"] for block in blocks if block["state"] == "active_allocated"]
    assert sum(active) == record.memory.after_step_allocated
    assert sum(active) == sum(segment["active_size"] for segment in snapshot["segments"])
    level = again.levels(trace, record.spec)
    if level.reserved is not None:
        total = sum(segment["total_size"] for segment in snapshot["segments"])
        assert total == level.reserved[-1]


def test_blocks_tile_their_segment(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    _, _, snapshot = case
    assert snapshot["segments"]
    for segment in snapshot["segments"]:
        address = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == address
            assert block["requested_size"] <= block["size"]
            address += block["size"]
        assert address == segment["address"] + segment["total_size"]


def test_replaying_its_entries_gives_the_records_peak(
    case: tuple[Record, Trace, dict[str, Any]],
) -> None:
    record, trace, snapshot = case
    level = again.levels(trace, record.spec)
    held = {event: (allocated, reserved) for event, allocated, reserved in replayed(snapshot)}
    first = next(mark.event for mark in trace.marks if mark.step == 1)
    assert max(allocated for event, (allocated, _) in held.items() if event >= first) == (
        record.memory.peak_allocated
    )
    for event, (allocated, reserved) in held.items():
        assert allocated == level.allocated[event]
        assert level.reserved is None or reserved == level.reserved[event]


def test_every_block_says_where_it_is_from(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    record, _, snapshot = case
    entries = [one for one in snapshot["device_traces"][0] if one["action"] == "alloc"]
    assert {entry["category"] for entry in entries} <= {*CATEGORIES, "unknown"}
    for entry in entries:
        assert entry["frames"][0]["name"]
        assert all(set(frame) == {"filename", "line", "name"} for frame in entry["frames"])
        assert entry["user_metadata"].startswith(record.source)
    modules = {frame["filename"] for entry in entries for frame in entry["frames"][1:]}
    assert any(name.endswith("self_attn.q_proj") for name in modules)
    sources = {entry["frames"][0]["filename"] for entry in entries}
    assert "transformers/models/llama/modeling_llama.py" in sources
    assert snapshot["allocator_settings"]["profiler"]["source"] == record.source


def test_with_categories_one_is_unknown(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    """Without it the viewer fails (MemoryViz.js, `annotate_snapshot`)."""
    categories = {entry["category"] for entry in case[2]["device_traces"][0]}
    assert "unknown" in categories
    assert "activations" in categories


def test_phases_are_annotated(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    notes = case[2]["external_annotations"]
    names = {note["name"] for note in notes}
    assert {f"{phase} of step 1" for phase in PHASES} <= names
    times = [note["time_us"] for note in notes]
    assert times == sorted(times)


def test_where_a_card_would_end_it_is_marked(pair: Pairs) -> None:
    record, trace = pair("oom")
    snapshot = memory_viz.snapshot(record, trace)
    (oom,) = [one for one in snapshot["device_traces"][0] if one["action"] == "oom"]
    level = again.levels(trace, record.spec)
    assert level.oom is not None
    assert oom["size"] == level.oom.requested
    assert 0 <= oom["device_free"] < oom["size"] + (2 << 20)
    assert "addr" not in oom
    assert _memory_viz.trace(snapshot).count("OutOfMemoryError") == 1


def test_torch_sums_it_up(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    """`python -m torch.cuda._memory_viz stats`, which fails if the sums do not agree."""
    _, _, snapshot = case
    text = _memory_viz.segsum(snapshot)
    assert f"segments: {len(snapshot['segments'])}\n" in text
    total = sum(segment["total_size"] for segment in snapshot["segments"])
    assert f"total_reserved: {_memory_viz.Bytes(total)}\n" in text


@pytest.mark.parametrize("view", [_memory_viz.segments, _memory_viz.memory])
def test_torch_finds_every_byte_in_its_flame_graph(
    case: tuple[Record, Trace, dict[str, Any]], view: Callable[..., str]
) -> None:
    record, _, snapshot = case
    lines = view(snapshot, format_flamegraph=lambda text: text).splitlines()
    sizes = [(line, int(line.rpartition(" ")[2])) for line in lines]
    active = sum(size for line, size in sizes if ";active_allocated;" in line)
    assert active == record.memory.after_step_allocated
    total = sum(segment["total_size"] for segment in snapshot["segments"])
    assert sum(size for _, size in sizes) == total


def test_torch_tells_it_as_a_program(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    _, _, snapshot = case
    entries = snapshot["device_traces"][0]
    text = _memory_viz.trace(snapshot)
    assert f"{len(entries)} entries\n" in text
    freed = sum(entry["action"] == "free_completed" for entry in entries)
    assert len(re.findall("^# free completed for ", text, re.MULTILINE)) == freed


def test_torch_plots_it(case: tuple[Record, Trace, dict[str, Any]]) -> None:
    _, _, snapshot = case
    for page in (
        _memory_viz.trace_plot(snapshot),
        _memory_viz.trace_plot(snapshot, plot_segments=True),
        _memory_viz.segment_plot(snapshot),
        _memory_viz.trace_plot(snapshot, filter_freed=True),
    ):
        assert "snapshot.pickle" in page
    # The last one left what is alive at the end.
    left = [one for one in snapshot["device_traces"][0] if one["action"] == "alloc"]
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    active = {block["address"] for block in blocks if block["state"] == "active_allocated"}
    assert {entry["addr"] for entry in left} == active


def test_of_many_lengths_it_is_the_step_of_the_peak(lengths: tuple[Record, Trace]) -> None:
    record, trace = lengths
    snapshot = loaded(memory_viz.render(record, trace))
    assert max(level for _, level, _ in replayed(snapshot)) == record.memory.peak_allocated
    assert "the step of the peak" in snapshot["allocator_settings"]["profiler"]["steps"]


@given(trace=traces())
def test_any_trace_tiles_and_replays(trace: Trace) -> None:
    record = Record(id="x", status="ok", source="simulated", spec={"device": "a100-80gb"})
    snapshot = loaded(memory_viz.render(record, trace))
    level = again.levels(trace, record.spec)
    for event, allocated, reserved in list(replayed(snapshot))[-1:]:
        assert allocated == level.allocated[event]
        assert level.reserved is None or reserved == level.reserved[event]
    _memory_viz.segsum(snapshot)
    made = history(trace, AllocConf(), None)
    assert len(snapshot["segments"]) == len(made.segments)
