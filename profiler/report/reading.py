"""Which records of a large folder are read whole: those that a page takes apart."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.errors import StoreError
from profiler.record import Record
from profiler.report.cells import arrange
from profiler.report.thinning import DETAILED, thin
from profiler.store import Store

#: Records that a page is made of with all their details. Each takes some milliseconds to read and a
#: megabyte of memory; a page of more cells shows the details of few.
WHOLE = 1000


def with_details(records: Sequence[Record], store: Store) -> list[Record]:
    """The records, with those read again whole that stand for their panels."""
    shown = {id(cell.record) for cell in thin(arrange(list(records)), DETAILED)}
    return [_whole(record, store) if id(record) in shown else record for record in records]


def _whole(record: Record, store: Store) -> Record:
    try:
        found = store.get(record.id, str(record.environment.get("fingerprint", "")))
    except StoreError:
        found = None
    return found or record  # gone since, or under another name
