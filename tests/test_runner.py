from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fake_cells
import pytest

from profiler import runner
from profiler.errors import UsageError
from profiler.record import Record
from profiler.runner import Outcome, Task, run_tasks
from profiler.spec import RunSpec
from profiler.store import Store

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def _run(tasks: Sequence[Task], store: Store, **options: Any) -> dict[str, Outcome]:
    """Outcomes by the method's first word."""
    options.setdefault("job", fake_cells.run)
    outcomes = list(run_tasks(tasks, store, **options))
    assert sorted(one.task.spec.method for one in outcomes) == sorted(
        task.spec.method for task in tasks
    )
    return {one.task.spec.method.split()[0]: one for one in outcomes}


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@WORKERS
def test_every_cell_has_its_result_and_each_is_stored(tmp_path: Path, workers: int) -> None:
    store = Store(tmp_path)
    tasks = [fake_cells.task(method) for method in ("ok", "failed", "unsupported")]
    outcomes = _run(tasks, store, workers=workers)
    assert {word: one.record and one.record.status for word, one in outcomes.items()} == {
        "ok": "ok",
        "failed": "failed",
        "unsupported": "unsupported",
    }
    assert {one.id for one in store.all()} == {task.id for task in tasks}
    assert not any(one.reused for one in outcomes.values())


@WORKERS
def test_a_cell_that_raises_is_failed_and_the_rest_goes_on(tmp_path: Path, workers: int) -> None:
    tasks = [fake_cells.task(method) for method in ("raise", "odd", "ok", "usage")]
    outcomes = _run(tasks, Store(tmp_path), workers=workers)
    raised, odd, good = (outcomes[word].record for word in ("raise", "odd", "ok"))
    assert raised is not None
    assert (raised.status, raised.error) == ("failed", "RuntimeError: no luck")
    assert raised.id == tasks[0].id
    assert odd is not None
    assert (odd.status, odd.error) == ("failed", "OddError: leftright")
    assert good is not None
    assert good.status == "ok"
    assert outcomes["usage"].record is None
    assert "matches nothing" in outcomes["usage"].usage_error


def test_a_worker_that_dies_costs_its_own_cell_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    methods = ["ok 1", "kill", "ok 2", "exit", "ok 3"]
    outcomes = list(
        run_tasks([fake_cells.task(one) for one in methods], store, workers=2, job=fake_cells.run)
    )
    records = {one.task.spec.method: one.record for one in outcomes}
    assert sorted(records) == sorted(methods)
    status = {method: record.status for method, record in records.items() if record is not None}
    assert status == {
        "ok 1": "ok", "ok 2": "ok", "ok 3": "ok", "kill": "crashed", "exit": "crashed",
    }  # fmt: skip
    killed, left = records["kill"], records["exit"]
    assert killed is not None
    assert killed.error is not None
    assert "SIGKILL" in killed.error
    assert left is not None
    assert left.error is not None
    assert "exit code 7" in left.error
    assert len(store.all()) == 5


def test_stored_cells_are_reused_until_told_otherwise(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tasks = [fake_cells.task("ok"), fake_cells.task("failed"), fake_cells.task("unsupported")]
    ran: list[str] = []

    def job(spec: RunSpec) -> Record:
        ran.append(spec.method)
        return fake_cells.run(spec)

    first = _run(tasks, store, job=job)
    again = _run(tasks, store, job=job)
    assert ran == ["ok", "failed", "unsupported"]
    assert all(one.reused for one in again.values())
    assert [one.record for one in again.values()] == [one.record for one in first.values()]
    _run(tasks, store, job=job, retry_failed=True)
    assert ran[3:] == ["failed"]
    _run(tasks, store, job=job, overwrite=True)
    assert ran[4:] == ["ok", "failed", "unsupported"]


def test_what_was_refused_is_always_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    task = fake_cells.task("refused", device="cpu")
    for _ in range(2):
        outcome = _run([task], store)["refused"]
        assert not outcome.reused
        assert outcome.record is not None
        assert outcome.record.status == "refused"


def test_measured_cells_run_after_the_simulated_ones_and_not_beside_each_other(
    tmp_path: Path,
) -> None:
    tasks = [
        fake_cells.task(f"where {number}", device=device)
        for number, device in enumerate(["cpu", "rtx-4090", "cuda", "sim:cpu", "t4"])
    ]
    started: list[str] = []
    outcomes = list(
        run_tasks(
            tasks,
            Store(tmp_path),
            workers=2,
            job=fake_cells.run,
            started=lambda task: started.append(task.spec.device),
        )
    )
    assert started[-2:] == ["cpu", "cuda"]
    assert [one.task.source for one in outcomes] == ["simulated"] * 3 + ["measured"] * 2
    processes = [one.record.error for one in outcomes if one.record is not None]
    assert str(os.getpid()) not in processes[:3]
    assert processes[3:] == [str(os.getpid())] * 2


def test_a_stored_cell_shows_the_label_it_was_asked_for_by(tmp_path: Path) -> None:
    store = Store(tmp_path)
    typed = fake_cells.task("ok")
    _run([typed], store)
    other = Task(typed.spec, typed.id, {**typed.record_spec, "method": {"label": "okay"}})
    (outcome,) = run_tasks([other], store, job=fake_cells.run)
    assert outcome.reused
    assert outcome.record is not None
    assert outcome.record.label == "okay"


def test_a_record_of_another_environment_is_not_reused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    task = fake_cells.task("ok")
    store.put(fake_cells.record(task.spec, environment={"fingerprint": "0" * 12}))
    assert not _run([task], store)["ok"].reused
    assert len(store.all()) == 2


def test_a_record_that_cannot_be_read_is_said_and_the_cell_runs_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    task = fake_cells.task("ok")
    _run([task], store)
    (path,) = store.records.iterdir()
    path.write_text("{")
    warnings: list[str] = []
    outcome = _run([task], store, warn=warnings.append)["ok"]
    assert not outcome.reused
    assert len(warnings) == 1
    assert path.name in warnings[0]
    assert store.all() == [outcome.record]


def test_a_result_that_cannot_be_stored_is_still_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    warnings: list[str] = []
    tasks = [fake_cells.task("ok 1"), fake_cells.task("ok 2")]
    outcomes = list(
        run_tasks(
            tasks,
            Store(tmp_path / "file"),
            overwrite=True,
            job=fake_cells.run,
            warn=warnings.append,
        )
    )
    assert [one.record is not None and one.kept for one in outcomes] == [False, False]
    assert len(warnings) == 2


def test_each_task_is_announced_before_its_outcome(tmp_path: Path) -> None:
    seen: list[str] = []
    for outcome in run_tasks(
        [fake_cells.task("ok 1"), fake_cells.task("ok 2")],
        Store(tmp_path),
        job=fake_cells.run,
        started=lambda task: seen.append("start " + task.spec.method),
    ):
        seen.append("end " + outcome.task.spec.method)
    assert seen == ["start ok 1", "end ok 1", "start ok 2", "end ok 2"]


def test_ctrl_c_in_a_cell_goes_through_and_keeps_what_is_done(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def job(spec: RunSpec) -> Record:
        if spec.method == "stop":
            raise KeyboardInterrupt
        return fake_cells.run(spec)

    tasks = [fake_cells.task(method) for method in ("ok", "stop", "ok never")]
    with pytest.raises(KeyboardInterrupt):
        list(run_tasks(tasks, store, job=job))
    assert [one.label for one in store.all()] == ["ok"]


def test_closing_the_run_ends_its_workers_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    tasks = [fake_cells.task("ok"), fake_cells.task(f"hang {tmp_path}"), fake_cells.task("ok 2")]
    before = set(multiprocessing.active_children())
    running = run_tasks(tasks, store, workers=2, job=fake_cells.run)
    first = next(running)
    running.close()
    assert set(multiprocessing.active_children()) <= before
    assert first.record is not None
    assert [one.id for one in store.all()] == [first.record.id]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_sweep(tmp_path: Path, number: signal.Signals) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    driver = Path(__file__).with_name("orphan_driver.py")
    with subprocess.Popen(
        [sys.executable, driver, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:

        def pids() -> list[int]:
            return [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]

        try:
            _until(lambda: len(pids()) == 2 or process.poll() is not None)
            assert all(_alive(pid) for pid in pids())
            group = os.getpgid(process.pid)
            if number == signal.SIGINT:  # a terminal's Ctrl-C reaches the whole group
                os.killpg(group, number)
            else:
                process.send_signal(number)
            process.wait(60)
            _until(lambda: not any(_alive(pid) for pid in pids()))
            assert len(pids()) == 2
        finally:
            process.kill()


@pytest.fixture
def _resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_cells.modules()["profiler.resolve"]

    def resolve(spec: RunSpec, *, here: bool = True) -> object:
        same = "lora" if spec.method == "lora:r=16" else spec.method
        return fake_cells.resolve(spec.replace(method=same))

    monkeypatch.setattr(module, "resolve", resolve)
    monkeypatch.setitem(sys.modules, "profiler.resolve", module)


@pytest.mark.usefixtures("_resolution")
def test_a_plan_has_each_cell_once_and_keeps_what_cannot_be_resolved() -> None:
    methods = ["lora", "unsupported", "lora:r=16", "full"]
    tasks = runner.plan([fake_cells.spec(method) for method in methods])
    assert [task.spec.method for task in tasks] == ["lora", "unsupported", "full"]
    assert [bool(task.id) for task in tasks] == [True, False, True]


@pytest.mark.usefixtures("_resolution")
def test_wrong_usage_ends_a_plan() -> None:
    with pytest.raises(UsageError, match="no such option"):
        runner.plan([fake_cells.spec("full"), fake_cells.spec("unresolvable")])


def test_an_unresolved_cell_that_fails_has_a_record_that_can_be_stored(tmp_path: Path) -> None:
    task = Task(fake_cells.spec("raise"))
    outcome = _run([task], Store(tmp_path))["raise"]
    assert outcome.kept
    assert outcome.record is not None
    assert outcome.record.status == "failed"
    assert Store(tmp_path).all() == [outcome.record]
