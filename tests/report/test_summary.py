"""The answer's sentences follow from the records."""

from __future__ import annotations

from collections.abc import Callable

from profiler.record import Record
from profiler.report.cells import arrange
from profiler.report.summary import answers, sentences

GIB = 2**30
RecordFactory = Callable[..., Record]


def test_least_and_most_are_named_with_their_need(study: list[Record]) -> None:
    text = " ".join(sentences(arrange(study)))
    peaks = {
        record.label: record.memory.peak_reserved
        for record in study
        if record.memory.peak_reserved and record.spec["device"] == "a100-80gb"
    }
    least, most = min(peaks, key=lambda n: peaks[n] or 0), max(peaks, key=lambda n: peaks[n] or 0)
    assert f"{least} needs the least" in text
    assert f"{most} the most" in text
    assert f"{(peaks[most] or 0) / GIB:.1f} GiB" in text


def test_what_fits_is_counted_per_card(study: list[Record]) -> None:
    text = " ".join(sentences(arrange(study)))
    assert "rtx-4090 (24.0 GiB) holds 7 of 8, all but full" in text
    assert "a100-80gb (80.0 GiB) holds all 8" in text


def test_what_fills_the_memory_is_the_largest_category(record: RecordFactory) -> None:
    (cell,) = arrange([record("ia3")])
    parts = cell.memory.at_peak
    share = 100 * parts["base_parameters"] / sum(parts.values())
    text = sentences([cell])[-1]
    assert "base parameters" in text
    assert f"{share:.0f} %" in text


def test_cells_without_a_result_are_counted(study: list[Record]) -> None:
    assert "2 of 26 cells have no result" in sentences(arrange(study))[-1]


def test_no_result_at_all_is_said(record: RecordFactory) -> None:
    failed = record(status="failed", error="boom", memory={}, fits=None)
    (text,) = sentences(arrange([failed]))
    assert text.startswith("None of the 1")


def test_simulated_and_measured_are_answered_apart(record: RecordFactory) -> None:
    found = answers(arrange([record("ia3"), record("full", "a100-80gb", source="measured")]))
    assert [answer.source for answer in found] == ["simulated", "measured"]
    assert "full" not in " ".join(found[0].sentences)
    assert "ia3" not in " ".join(found[1].sentences)
