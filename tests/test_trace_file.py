"""Traces on disk come back as they were, and nothing else is taken for one."""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import small, traces

from profiler import trace_file
from profiler.errors import StoreError
from profiler.trace import Trace


def content(trace: Trace) -> dict[str, Any]:
    data = json.loads(gzip.decompress(trace_file.dumps(trace)))
    assert isinstance(data, dict)
    return data


def packed(data: Any) -> bytes:
    return gzip.compress(json.dumps(data).encode(), mtime=0)  # else a test's name is the time


def refusal(data: bytes) -> str:
    with pytest.raises(StoreError) as raised:
        trace_file.loads(data)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@given(trace=traces())
def test_a_trace_comes_back_as_it_was(trace: Trace) -> None:
    data = trace_file.dumps(trace)
    assert trace_file.loads(data) == trace
    assert trace_file.dumps(trace) == data


def test_an_empty_trace_comes_back() -> None:
    empty = Trace(cuda=False, source="measured")
    assert trace_file.loads(trace_file.dumps(empty)) == empty


def test_fields_with_a_default_may_be_missing() -> None:
    data = content(small())
    del data["trace"]["blocks"]["source"], data["trace"]["ops"]["event"]
    read = trace_file.loads(packed(data))
    assert [block.source for block in read.blocks] == ["", ""]
    assert read.ops[0].event == 0


@given(data=st.data())
def test_a_part_of_a_file_is_refused(data: st.DataObject) -> None:
    whole = trace_file.dumps(small())
    refusal(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(data=st.data())
def test_a_changed_file_is_refused_or_means_the_same(data: st.DataObject) -> None:
    whole = bytearray(trace_file.dumps(small()))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        read = trace_file.loads(bytes(whole))
    except StoreError:
        return
    assert read == small()  # its time stamp, say, was changed


def dropped(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda trace: trace.pop(key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda trace: trace.update(schema=99), "schema 99; this version reads schema 1"),
        (dropped("schema"), "no schema"),
        (dropped("events"), "no events"),
        (lambda trace: trace.update(events=["one"]), "events: "),
        (lambda trace: trace.update(events=[1 << 70]), "events: "),
        (lambda trace: trace.update(events=[1, 1]), "event 1 contradicts"),
        (lambda trace: trace.update(events=[-1]), "event 0 contradicts"),
        (lambda trace: trace.update(events=[1, -1, -1]), "event 2 contradicts"),
        (lambda trace: trace.update(events=[3]), "event 0 contradicts"),
        (lambda trace: trace.update(events=[1]), "its marks are out of order"),
        (lambda trace: trace["marks"]["event"].reverse(), "its marks are out of order"),
        (lambda trace: trace["ops"].pop("name"), "no ops.name"),
        (lambda trace: trace["ops"]["flops"].append(1), "columns of different lengths"),
        (lambda trace: trace["blocks"]["dtype"]["at"].__setitem__(0, 9), "a place without"),
        (lambda trace: trace["blocks"]["dtype"]["at"].__setitem__(0, -1), "a place without"),
        (lambda trace: trace["blocks"]["shape"].update(values=["x"]), "blocks.shape.values: "),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[dict[str, Any]], None], reason: str) -> None:
    data = content(small())
    change(data["trace"])
    assert reason in refusal(packed(data))


@pytest.mark.parametrize("data", [b"", b"{}", packed([]), packed({"schema": 1}), packed("trace")])
def test_another_file_is_no_trace(data: bytes) -> None:
    assert refusal(data).startswith("not a trace")


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(tmp_path / "none")):
        trace_file.read(tmp_path / "none")
    (tmp_path / "broken").write_bytes(b"x")
    with pytest.raises(StoreError, match=f"{tmp_path / 'broken'}: not a trace"):
        trace_file.read(tmp_path / "broken")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        trace_file.write(small(), tmp_path / "file" / "trace")


def test_what_cannot_be_kept_leaves_no_earlier_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace"
    trace_file.keep(small(), path)
    assert trace_file.read(path) == small()

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trace_file, "replace_file", full)
    trace_file.keep(small(), path)
    assert not path.exists()


def test_a_trace_lies_beside_its_record() -> None:
    assert trace_file.beside(Path("a/b.json")) == Path("a/b.trace.json.gz")
