"""Of several records of a cell the page shows the newest and counts the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiler.record import Record
from profiler.report import render
from profiler.report.__main__ import main
from profiler.report.newest import split
from profiler.store import Store

RecordFactory = Callable[..., Record]


def version(record: Record, fingerprint: str, peft: str) -> Record:
    changed = record.model_copy(deep=True)
    changed.id = "cell"
    changed.environment |= {"fingerprint": fingerprint, "peft": peft}
    return changed


def put(store: Store, record: Record, seconds: int) -> None:
    os.utime(store.put(record), (seconds, seconds))


@pytest.mark.parametrize(
    ("first", "second"), [("0.13.2", "0.21.2"), ("0.21.2", "0.13.2"), ("0.9.0", "0.10.0")]
)
def test_what_was_written_last_counts_whatever_its_version(
    record: RecordFactory, tmp_path: Path, first: str, second: str
) -> None:
    store = Store(tmp_path)
    old, new = version(record(), "aaaa", first), version(record(), "bbbb", second)
    put(store, old, 1000)
    put(store, new, 2000)
    assert split([old, new], store) == ([new], [old])
    assert split([new, old], store) == ([new], [old])


def test_at_one_time_the_newer_version_counts(record: RecordFactory, tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, new = version(record(), "zzzz", "0.9.2"), version(record(), "aaaa", "0.10.0")
    for one in (new, old):
        put(store, one, 1000)
    assert split([new, old], store) == ([new], [old])


def test_files_under_another_name_are_records_too(record: RecordFactory, tmp_path: Path) -> None:
    one, other = version(record(), "not/a name", "0.1"), record("ia3")
    kept, older = split([one, other], Store(tmp_path))
    assert (kept, older) == ([one, other], [])


def test_the_command_shows_the_newest_and_counts_the_others(
    record: RecordFactory, tmp_path: Path, html: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    put(store, version(record(), "aaaa", "0.13.2"), 1000)
    put(store, version(record(), "bbbb", "0.20.0"), 2000)
    put(store, version(record(), "cccc", "0.21.2"), 3000)
    assert main([str(tmp_path)]) == 0
    found = html((tmp_path / "index.html").read_text(encoding="utf-8"))
    rows = found.table("parameters, memory").rows
    assert len([row for row in rows if len(row) > 1]) == 1
    environment = {row[0].text: row[1].text for row in found.table("Environment").rows}
    assert environment["fingerprint"].strip() == "cccc"
    older = found.table("Older records").rows
    assert [(row[0].text, row[1].text) for row in older] == [("aaaa", "1"), ("bbbb", "1")]
    assert "peft 0.13.2" in older[0][2].text

    assert main([str(tmp_path), "--all-versions"]) == 0
    found = html((tmp_path / "index.html").read_text(encoding="utf-8"))
    rows = found.table("parameters, memory").rows
    assert len([row for row in rows if len(row) > 1]) == 3
    assert not [table for table in found.tables if "Older" in table.caption]
    capsys.readouterr()


def test_older_records_do_not_change_what_is_shown(record: RecordFactory) -> None:
    alone = render([record()], title="t")
    with_older = render([record()], title="t", older=[record("full")])
    start = alone.index("<main")
    end = alone.index('<section id="provenance"')
    assert alone[start:end] == with_older[start:end]
