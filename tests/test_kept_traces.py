"""`--keep-traces`: traces beside records, of the same runs, made where they are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cells
import pytest
from traces import small

from profiler import trace_file
from profiler.record import Record
from profiler.runner import Outcome, run_tasks
from profiler.spec import RunSpec
from profiler.store import Store

TASK = fake_cells.task("ok")


class Sweep:
    """Runs one fake cell and counts how often it ran."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.ran = 0
        self.warnings: list[str] = []

    def __call__(self, *, writes: bool = True, method: str = "ok", **options: Any) -> Outcome:
        def job(spec: RunSpec) -> Record:
            self.ran += 1
            record = fake_cells.run(spec)
            if writes and record.memory.peak_allocated is not None:
                trace_file.keep(small(), self.path(method))
            return record

        task = fake_cells.task(method)
        (outcome,) = run_tasks([task], self.store, job=job, warn=self.warnings.append, **options)
        return outcome

    def path(self, method: str = "ok") -> Path:
        task = fake_cells.task(method)
        return self.store.trace_path(fake_cells.record(task.spec))


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_a_kept_trace_is_not_made_again(sweep: Sweep) -> None:
    assert sweep(keep_traces=True).kept
    assert trace_file.read(sweep.path()) == small()
    assert sweep(keep_traces=True).reused
    assert sweep.ran == 1
    assert sweep.warnings == []
    assert [one.id for one in sweep.store.all()] == [TASK.id]


def test_a_record_without_a_trace_runs_again_and_it_is_said(sweep: Sweep) -> None:
    sweep(writes=False)
    assert not sweep.path().exists()
    assert sweep(keep_traces=True).kept
    assert sweep.ran == 2
    assert sweep.path().exists()
    assert sweep.warnings == ["1 cell is stored without a trace and will be run again to keep it"]


def test_what_has_no_result_has_no_trace_to_wait_for(sweep: Sweep) -> None:
    def empty(spec: RunSpec) -> Record:
        return fake_cells.record(spec, status="unsupported", memory={})

    task = fake_cells.task("unsupported")
    for reused in (False, True):
        (outcome,) = run_tasks([task], sweep.store, job=empty, keep_traces=True)
        assert outcome.reused is reused
        assert outcome.kept


def test_a_trace_goes_with_the_record_of_its_run(sweep: Sweep) -> None:
    sweep(keep_traces=True)
    sweep(writes=False, overwrite=True)
    assert not sweep.path().exists()


def test_without_the_flag_traces_stay_with_reused_records(sweep: Sweep) -> None:
    sweep(keep_traces=True)
    assert sweep().reused
    assert sweep.path().exists()


def test_a_trace_that_could_not_be_written_is_missed(sweep: Sweep) -> None:
    assert not sweep(writes=False, keep_traces=True).kept
    assert sweep.warnings == [f"{sweep.path()} could not be written"]


def test_the_flag_reaches_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from profiler import noise, report, sweep

    modules = fake_cells.modules()
    seen: list[Path | None] = []

    def run(made: RunSpec, *, traces: Path | None = None, **options: Any) -> Record:
        seen.append(traces)
        record = fake_cells.run(made, **options)
        if traces is not None:
            Store(traces).keep_trace(record, small())
        return record

    vars(modules["profiler.execute"])["run"] = run
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(report, "build", fake_cells.build)
    monkeypatch.setattr(noise, "hush", lambda: None)
    command: Callable[..., int] = lambda *more: sweep.main(  # noqa: E731
        ["--model", "tiny", "--workers", "1", "--output", str(tmp_path), *more]
    )
    assert command("--quiet") == 0
    assert command("--quiet", "--keep-traces") == 0
    assert seen == [None, tmp_path]
    assert "without a trace" in capsys.readouterr().err
    assert len(list((tmp_path / "records").iterdir())) == 2
