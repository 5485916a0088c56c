"""The newest record of every cell, where a folder holds what several library versions gave."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from profiler.environment import LIBRARIES
from profiler.errors import StoreError
from profiler.record import Record
from profiler.store import Store


def split(records: Sequence[Record], store: Store) -> tuple[list[Record], list[Record]]:
    """The record of each cell that was written last, and the others.

    Of files with one time stamp (a copy may lose them) the one of the newer versions counts.
    """
    newest: dict[str, Record] = {}
    for record in records:
        best = newest.get(record.id)
        if best is None or age(record, store) > age(best, store):
            newest[record.id] = record
    kept = {id(record) for record in newest.values()}
    return list(newest.values()), [record for record in records if id(record) not in kept]


def age(record: Record, store: Store) -> tuple[Any, ...]:
    """Greater for a newer record."""
    environment = record.environment
    fingerprint = str(environment.get("fingerprint", ""))
    try:
        written = store.path(record.id, fingerprint).stat().st_mtime_ns
    except (OSError, StoreError):  # a file under another name
        written = 0
    versions = [
        [int(part) for part in re.findall(r"\d+", str(environment.get(name) or ""))]
        for name in ("profiler", *LIBRARIES)
    ]
    return written, versions, fingerprint
