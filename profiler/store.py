"""Records on disk: one JSON file per cell, written whole or not at all.

A file is named by the cell's id and the fingerprint of the environment that made it, so that two
versions of a library never share a record. Records that are kept for good may be packed
(`gzip -n records/*.json`): a tenth of the bytes. They are read as others are, and the record of a
new run takes their place unpacked.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.config import ExtraValues
from typing_extensions import TypedDict

from profiler import trace_file
from profiler.errors import StoreError
from profiler.files import replace_file, unpack
from profiler.locks import Claim, claim, remove_abandoned
from profiler.record import Flops, Memory, Part, Record, Time
from profiler.trace import Trace

#: What a packed record's name has more.
PACKED = ".gz"

#: What takes a run apart, by the record's part that holds it; all of it may be missing.
DETAILS = {
    "memory": ("modules", "timeline", "holders"),
    "time": ("modules", "kernels"),
    "flops": ("modules",),
}

#: Bytes that must be free to begin: a large model's record.
_ROOM = 1 << 18

#: What an id or a fingerprint may look like: it becomes a file's name and never leaves the folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,@-]{0,119}")


class Store:
    """The records under `folder/records/`.

    Raises:
        StoreError: from every method, one line, when the folder or a file in it cannot be read
            or written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.records = self.folder / "records"
        self._prepared = False

    def path(self, id: str, fingerprint: str) -> Path:
        """The file that holds (or would hold) a cell's record."""
        for name, value in (("id", id), ("fingerprint", fingerprint)):
            if not _NAME.fullmatch(value):
                raise StoreError(f"{value!r} cannot be the {name} of a stored record")
        return self.records / f"{id}.{fingerprint}.json"

    def trace_path(self, record: Record) -> Path:
        """The file beside a record's that holds the trace of its run, if that was kept."""
        return trace_file.beside(self.path(record.id, _fingerprint(record)))

    def keep_trace(self, record: Record, trace: Trace) -> None:
        """Write the trace of a record's run. One that cannot be written is not there: nor is an
        earlier run's then, and who asked for it sees that."""
        trace_file.keep(trace, self.trace_path(record))

    def drop_trace(self, record: Record) -> None:
        """Remove the trace of an earlier run, in whose record's place this one is."""
        path = self.trace_path(record)
        with _said(f"cannot remove {path}"):
            path.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the folder, clear away what killed processes left half written in it, and see that
        a record can be written, before hours of work rely on it."""
        with _said(f"cannot write in {self.records}"):
            self.records.mkdir(parents=True, exist_ok=True)
            for folder in (self.folder, self.records):
                remove_abandoned(folder)
            with tempfile.TemporaryFile(dir=self.records) as file:
                file.write(bytes(_ROOM))
        self._prepared = True

    def claim(self, id: str, *, wait: bool = False) -> Claim | None:
        """Say that this process runs a cell; None if another one on this folder says so, which
        `wait` waits for."""
        path = self.path(id, "x")
        return claim(path.with_name(f".{id}.claim"), wait=wait)

    def get(self, id: str, fingerprint: str) -> Record | None:
        """The record of a cell, or None if there is none."""
        path = self.path(id, fingerprint)
        record = _read(path) or _read(path.with_name(path.name + PACKED))
        if record is not None and record.id != id:
            raise StoreError(f"{path}: holds the record of another cell, {record.id!r}")
        return record

    def fingerprints(self) -> dict[str, list[str]]:
        """The fingerprints of every cell's records, by the cell's id; from the files' names."""
        found: dict[str, list[str]] = {}
        with suppress(OSError):
            for name in sorted(os.listdir(self.records)):
                name = name.removesuffix(PACKED)
                if name.endswith(".json"):
                    id, _, fingerprint = name.removesuffix(".json").rpartition(".")
                    found.setdefault(id, []).append(fingerprint)
        return found

    def put(self, record: Record) -> Path:
        """Write a record in place of the cell's earlier one."""
        path = self.path(record.id, _fingerprint(record))
        # A path typed with bytes that are no UTF-8 becomes a JSON escape.
        data = record.to_json().encode("utf-8", "backslashreplace")
        if self._prepared and not self.records.is_dir():
            # Made anew it might be on another disk than the one that was there.
            raise StoreError(f"cannot write {path}: the folder is gone since the start")
        with _said(f"cannot write {path}"):
            replace_file(path, data)
            path.with_name(path.name + PACKED).unlink(missing_ok=True)
        return path

    def count(self) -> int:
        """How many records there are, by their files' names."""
        return sum(map(len, self.fingerprints().values()))

    def all(self, problems: list[str] | None = None, *, whole: bool = True) -> list[Record]:
        """Every record, in the order of the files' names.

        Args:
            problems: Takes one line for each file that cannot be read; the others are returned.
                Without it the first such file is an error.
            whole: With what takes a run apart (`DETAILS`): nine tenths of a record.
        """
        with _said(f"no records in {self.folder}"):
            return read_folder(self.records, problems, whole=whole)


def read_folder(
    folder: Path, problems: list[str] | None = None, *, whole: bool = True
) -> list[Record]:
    """Every record that lies in a folder; as `Store.all`.

    Raises:
        OSError: the folder cannot be listed.
        StoreError: a file cannot be read, and there are no `problems` to take its line.
    """
    names = set(os.listdir(folder))
    records = []
    for name in sorted(names):
        plain = name.removesuffix(PACKED)
        is_record = plain.endswith(".json") and not name.endswith(trace_file.SUFFIX)
        if not is_record or (name != plain and plain in names):
            continue
        try:
            record = _read(folder / name, whole=whole)
        except StoreError as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        if record is not None:  # else it was removed just now
            records.append(record)
    return records


def _fingerprint(record: Record) -> str:
    return str(record.environment.get("fingerprint", ""))


def _read(path: Path, *, whole: bool = True) -> Record | None:
    with _said(f"cannot read {path}"):
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        text = unpack(text) if path.name.endswith(PACKED) else text
        return Record.from_json(text) if whole else _outline(text)
    except (StoreError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from None


@functools.cache
def _outlines() -> TypeAdapter[Any]:
    """Reads a record's JSON without its details: of what it ignores no Python object is made, and
    240 KB take 0.3 ms and not 0.7."""

    def some(name: str, fields: dict[str, Any], extra: ExtraValues) -> Any:
        shape = TypedDict(name, fields, total=False)  # type: ignore[misc]
        shape.__pydantic_config__ = ConfigDict(extra=extra)  # type: ignore[attr-defined]
        return shape

    parts: dict[str, type[Part]] = {"memory": Memory, "time": Time, "flops": Flops}
    kept = {
        name: some(name, dict.fromkeys(part.model_fields.keys() - DETAILS[name], Any), "ignore")
        for name, part in parts.items()
    }
    optional = {name: part | None for name, part in kept.items()}
    return TypeAdapter(some("record", optional, "allow"))


def _outline(text: bytes) -> Record:
    """A record without its details."""
    try:
        data = _outlines().validate_json(text)
    except ValueError:  # what is no text, or no record, is for the other to say
        data = Record.from_json(text).to_dict()
        for part, names in DETAILS.items():
            for name in names:
                (data.get(part) or {}).pop(name, None)
    return Record.from_dict(data)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn the system's errors into one line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from None
