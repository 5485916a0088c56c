"""The analysis of a stored trace gives the memory of its record again, without the libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler.analysis import again, flops
from profiler.record import Memory, Record
from profiler.trace import Trace


def memory_again(record: Record, trace: Trace) -> Memory:
    return again.analyse(trace, again.levels(trace, record.spec), record.spec)


@pytest.mark.parametrize("name", ["card", "expandable", "oom", "cpu"])
def test_a_simulated_record_byte_for_byte(
    pair: Callable[[str], tuple[Record, Trace]], name: str
) -> None:
    record, trace = pair(name)
    assert memory_again(record, trace).model_dump_json() == record.memory.model_dump_json()
    assert flops.analyse(trace) == record.flops


def test_a_measured_record_but_for_its_process(measured: tuple[Record, Trace]) -> None:
    record, trace = measured
    assert trace.source == record.source == "measured"
    assert record.memory.process
    expected = record.memory.model_copy(update={"process": None})
    assert memory_again(record, trace).model_dump_json() == expected.model_dump_json()


def test_it_needs_no_torch(folder: Path) -> None:
    code = f"""
import sys
from profiler import trace_file
from profiler.analysis import again
from profiler.export import chrome, csv, latex, markdown, memory_viz
from profiler.store import Store
store = Store({str(folder)!r})
for record in store.all():
    trace = trace_file.read(store.trace_path(record))
    again.analyse(trace, again.levels(trace, record.spec), record.spec)
    memory_viz.render(record, trace), chrome.render(record, trace)
csv.render(store.all()), latex.render(store.all()), markdown.render(store.all())
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
