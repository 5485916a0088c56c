"""A folder of records with their traces, as a sweep with --keep-traces leaves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import write

from profiler.execute import run
from profiler.record import Record
from profiler.spec import RunSpec
from profiler.store import Store
from profiler.trace import Trace
from profiler.trace_file import read

#: Cells by name: a card, with a conf of its own, one that does not hold it, and this machine.
CELLS: dict[str, dict[str, object]] = {
    "card": {"method": "lora", "device": "a100-80gb", "seq_len": 32, "steps": 2},
    "expandable": {
        "method": "ia3",
        "device": "rtx-4090",
        "seq_len": 32,
        "alloc_conf": "expandable_segments:True",
        "grad_accumulation": 2,
    },
    "oom": {"method": "full", "device": "t4", "seq_len": 256, "batch_size": 20_000},
    "cpu": {"method": "lora", "device": "sim:cpu", "seq_len": 24},
}

Pair = tuple[Record, Trace]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(Path(tmp_path_factory.mktemp("models")))["llama"]


@pytest.fixture(scope="session")
def made(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """The folder, and the records by the cells' names."""
    folder = tmp_path_factory.mktemp("study")
    store = Store(folder)
    records = {}
    for name, fields in CELLS.items():
        record = run(RunSpec(model=model, **fields), traces=folder)  # type: ignore[arg-type]
        assert record.status == ("oom" if name == "oom" else "ok"), record.error
        store.put(record)
        records[name] = record
    return folder, records


@pytest.fixture(scope="session")
def folder(made: tuple[Path, dict[str, Record]]) -> Path:
    return made[0]


@pytest.fixture(scope="session")
def records(made: tuple[Path, dict[str, Record]]) -> list[Record]:
    return list(made[1].values())


@pytest.fixture(scope="session")
def lengths(model: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A run of steps of different lengths, of which the peak's step is kept."""
    folder = tmp_path_factory.mktemp("lengths")
    (folder / "lengths.txt").write_text("20\n31\n8\n16\n")
    spec = RunSpec(
        model=model, method="lora", device="a100-80gb", lengths=str(folder / "lengths.txt")
    )
    record = run(spec, traces=folder)
    assert record.status == "ok", record.error
    return record, read(Store(folder).trace_path(record))


@pytest.fixture(scope="session")
def measured(model: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A cell that was really run here."""
    folder = tmp_path_factory.mktemp("measured")
    spec = RunSpec(model=model, method="lora", device="cpu", seq_len=16)
    record = run(spec, traces=folder, ignore_memory=True)
    assert record.status == "ok", record.error
    return record, read(Store(folder).trace_path(record))


@pytest.fixture(scope="session")
def pair(made: tuple[Path, dict[str, Record]]) -> Callable[[str], Pair]:
    """A cell's record and trace by its name."""

    def find(name: str) -> Pair:
        record = made[1][name]
        return record, read(Store(made[0]).trace_path(record))

    return find
