from __future__ import annotations

import io
from collections.abc import Sequence

import fake_cells
import pytest

from profiler import terminal
from profiler.record import Record

LABEL = "lora:r=64,target_modules=" + "+".join(f"layer_{number}" for number in range(30))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


def _records() -> list[Record]:
    whole = {"memory": {"peak_allocated": 123 * 2**30, "peak_reserved": 456 * 2**30}}
    params = {"total": 10**12, "trainable": 123_456_789_012, "trainable_fraction": 0.1}
    fits = {"capacity": 2**40, "headroom": -789 * 2**30}
    return [
        fake_cells.record(fake_cells.spec(LABEL), **whole, params=params, fits=fits),
        fake_cells.record(fake_cells.spec("failed"), status="failed", params=None, time=None,
                          memory={}),
    ]  # fmt: skip


def _text(stream: io.StringIO, records: Sequence[Record]) -> str:
    return terminal.text(stream, terminal.table(records, ["device"]))


def test_a_narrow_terminal_breaks_labels_and_no_figure() -> None:
    text = _text(Terminal(), _records())
    for figure in ("123,456,789,012", "123.00", "456.00", "250.00", "no, 789.00 GiB over"):
        assert figure in text
    assert LABEL not in text
    assert "…" not in text


def test_off_a_terminal_a_record_is_one_line() -> None:
    text = _text(io.StringIO(), _records())
    assert LABEL in text
    assert len(text.splitlines()) == 3 + len(_records())


def test_the_source_is_always_said() -> None:
    simulated, _ = _records()
    measured = simulated.model_copy(update={"source": "measured"})
    for records in ([simulated], [measured], [simulated, measured]):
        heading = terminal.heading(records, [])
        assert all(record.source in heading for record in records)
    text = _text(io.StringIO(), [simulated, measured])
    assert "simulated" in text
    assert "measured" in text
