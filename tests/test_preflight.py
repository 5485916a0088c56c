from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import write

from profiler import preflight
from profiler.execute import run, run_cell
from profiler.hardware.host_memory import Available, HostMemory
from profiler.preflight import PROCESS_BYTES, predicted_bytes, refusal
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec

GIB = 2**30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(Path(tmp_path_factory.mktemp("models")))["llama"]


def _cell(model: str, **fields: object) -> Cell:
    return resolve(RunSpec(**{"model": model, "seq_len": 32, "device": "cpu", **fields}))  # type: ignore[arg-type]


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(2**30, 2**41))
def test_a_run_is_refused_if_it_would_eat_into_the_reserve(
    tensors: int, left: int, limit: int
) -> None:
    available = Available(left, limit, "on this machine")
    fits = tensors + PROCESS_BYTES + available.reserve <= left
    assert (refusal(tensors, available) == "") == fits


def test_a_refusal_is_one_line_with_both_figures_and_the_way_round() -> None:
    said = refusal(14 * GIB, Available(6 * GIB, 8 * GIB, "in this control group"))
    assert "\n" not in said
    for word in ("14.00 GiB simulated", "6.00 GiB", "in this control group", "--ignore-memory"):
        assert word in said


def test_the_prediction_is_the_simulation_of_the_same_cell(model: str) -> None:
    small, large = _cell(model), _cell(model, batch_size=8)
    assert predicted_bytes(small) == run(small.spec.replace(device="sim:cpu")).memory.peak_allocated
    assert (predicted_bytes(large) or 0) > (predicted_bytes(small) or 0) > 0


def test_a_cell_that_cannot_be_simulated_has_no_prediction(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no fake kernel")

    cell = _cell(model)
    monkeypatch.setattr(sys.modules["profiler.execute"], "_simulate", fail)
    assert predicted_bytes(cell) is None


def test_a_cell_that_does_not_fit_is_refused_and_not_run(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = Available(GIB, 2 * GIB, "on this machine")
    monkeypatch.setattr(HostMemory, "available", lambda memory: little)
    monkeypatch.setattr("profiler.isolation._run", None)  # to call it would be an error
    monkeypatch.setattr(preflight, "PROCESS_BYTES", GIB)
    cell = _cell(model)
    record = run_cell(cell)
    assert (record.id, record.status, record.source) == (cell.id, "refused", "measured")
    assert not record.answered
    assert record.memory.peak_allocated is None
    assert re.search(r"would not fit.+--ignore-memory", record.error or "")
    ignored = run_cell(cell, ignore_memory=True)
    assert ignored.status == "failed"  # it was called
