"""Traces on disk: a `Trace` as compressed JSON beside its record, checked when it is read.

Rows are kept by column, and a text or a shape once with the rows that have it, so that a step of
100,000 ops takes a few megabytes.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from array import array
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from profiler.errors import StoreError
from profiler.files import replace_file, unpack
from profiler.trace import Block, Mark, Op, Trace

#: Version of the file's shape; raised when a key changes its meaning or goes away. Fields that
#: `profiler.trace` gives a default may be missing, as in a file from before they were there.
SCHEMA = 1

#: Ends the name of a trace; what stands before it is the record's, without `.json`.
SUFFIX = ".trace.json.gz"

#: The fields of the rows that a trace has, with their types.
_HINTS: dict[Any, dict[str, Any]] = {kind: get_type_hints(kind) for kind in (Block, Mark, Op)}

#: zlib's own default: a tenth larger than the smallest, several times as fast.
_LEVEL = 6


def beside(record: Path) -> Path:
    """Where the trace of a record's file is, if it was kept."""
    return record.with_name(record.name.removesuffix(".json") + SUFFIX)


def write(trace: Trace, path: Path) -> None:
    """Write a trace whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        replace_file(path, dumps(trace))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None


def keep(trace: Trace, path: Path) -> None:
    """As `write`, but what fails leaves no file: an earlier run's trace is not this run's."""
    try:
        write(trace, path)
    except StoreError:  # who asked for it sees that it is not there
        with suppress(OSError):
            path.unlink(missing_ok=True)


def read(path: Path) -> Trace:
    """The trace in a file.

    Raises:
        StoreError: the file cannot be read, or what is in it is no trace.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return loads(data)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from None


def dumps(trace: Trace) -> bytes:
    """The file's content; the same trace gives the same bytes."""
    data = {
        "schema": SCHEMA,
        "cuda": trace.cuda,
        "source": trace.source,
        "outside": trace.outside,
        "approximations": trace.approximations,
        "marks": _columns(trace.marks, Mark),
        "events": trace.events.tolist(),
        "blocks": _columns(trace.blocks, Block),
        "ops": _columns(trace.ops, Op),
    }
    text = json.dumps({"trace": data}, separators=(",", ":"))
    return gzip.compress(text.encode("ascii"), _LEVEL, mtime=0)


def loads(data: bytes) -> Trace:
    """The trace of `dumps`' output.

    Raises:
        StoreError: it is none, is cut short, or is of a schema that this version does not read.
    """
    try:
        outer = json.loads(unpack(data))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not a trace: {error}") from None
    content = outer.get("trace") if isinstance(outer, dict) else None
    if not isinstance(content, dict) or "schema" not in content:
        raise StoreError("not a trace: no schema")
    if content["schema"] != SCHEMA:
        raise StoreError(
            f"a trace of schema {content['schema']!r}; this version reads schema {SCHEMA}"
        )
    trace = Trace(
        cuda=_checked(content, "cuda", bool),
        source=_checked(content, "source", str),
        outside=_checked(content, "outside", dict[str, int]),
        approximations=_checked(content, "approximations", list[str]),
        marks=_rows(content, "marks", Mark),
        blocks=_rows(content, "blocks", Block),
        ops=_rows(content, "ops", Op),
    )
    try:
        trace.events = array("q", _checked(content, "events", list[int]))
    except OverflowError:
        raise StoreError("not a trace: events: a number out of range") from None
    _check_order(trace)
    return trace


def _columns(rows: list[Any], kind: type[Any]) -> dict[str, Any]:
    """The rows' fields as columns: integers as they are, others as their values and where."""
    columns: dict[str, Any] = {}
    for name, hint in _HINTS[kind].items():
        values = [getattr(row, name) for row in rows]
        if hint is int:
            columns[name] = values
        else:
            places = {value: place for place, value in enumerate(dict.fromkeys(values))}
            columns[name] = {"values": list(places), "at": [places[value] for value in values]}
    return columns


def _rows(content: dict[str, Any], key: str, kind: type[Any]) -> list[Any]:
    """The rows of `_columns`' output under a key."""
    table = _checked(content, key, dict[str, Any])
    columns: dict[str, list[Any]] = {}
    for field in dataclasses.fields(kind):
        if field.name in table or field.default is dataclasses.MISSING:
            columns[field.name] = _column(table, field.name, _HINTS[kind][field.name], key)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise StoreError(f"not a trace: {key}: columns of different lengths")
    return [
        kind(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]


def _column(table: dict[str, Any], name: str, hint: Any, within: str) -> list[Any]:
    if hint is int:
        return list(_checked(table, name, list[int], within))
    parts = _checked(table, name, dict[str, Any], within)
    values = _checked(parts, "values", list[hint], f"{within}.{name}")
    places = _checked(parts, "at", list[int], f"{within}.{name}")
    if places and not 0 <= min(places) <= max(places) < len(values):
        raise StoreError(f"not a trace: {within}.{name}: a place without a value")
    return [values[place] for place in places]


def _check_order(trace: Trace) -> None:
    """That each block is allocated before it is freed, once, and the marks follow the events."""
    states = bytearray(len(trace.blocks))  # 0: not yet there, 1: held, 2: freed
    for position, event in enumerate(trace.events):
        if event == 0:
            continue
        block = abs(event) - 1
        before = 0 if event > 0 else 1
        if block >= len(states) or states[block] != before:
            raise StoreError(f"not a trace: event {position} contradicts those before it")
        states[block] = before + 1
    places = [mark.event for mark in trace.marks]
    ends = [0, *places, len(trace.events)]
    if ends != sorted(ends):
        raise StoreError("not a trace: its marks are out of order")


def _checked(data: dict[str, Any], key: str, hint: Any, within: str = "") -> Any:
    where = f"{within}.{key}" if within else key
    if key not in data:
        raise StoreError(f"not a trace: no {where}")
    try:
        return _adapter(hint).validate_python(data[key])
    except ValidationError as error:
        raise StoreError(f"not a trace: {where}: {error.errors()[0]['msg']}") from None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)
