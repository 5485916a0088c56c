"""What an exported trace says of where it is from."""

from __future__ import annotations

from profiler.record import Record
from profiler.report.cells import model_of, workload_of

#: Of a run of many lengths one step is kept, and an allocator that begins with it reserves less.
PEAK_STEP = (
    "the step of the peak alone, through a fresh allocator: reserved bytes and where blocks lie "
    "are not those of the whole run, which are in the record"
)


def about(record: Record) -> dict[str, str]:
    """The run's source, id and cell; and `steps`, if the trace is not of all of them."""
    words = {
        "source": record.source,
        "id": record.id,
        "model": model_of(record),
        "method": record.label,
        "device": str(record.spec.get("device", "")),
        "workload": workload_of(record),
    }
    return words | {"steps": PEAK_STEP} if record.memory.history is not None else words
