"""Cells on other machines: a Ray cluster of two nodes, and submitit without SLURM."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_cells
import psutil
import pytest

from profiler import sweep
from profiler.errors import UsageError
from profiler.executors import remote
from profiler.executors.elsewhere import Elsewhere, asked_for
from profiler.record import Record
from profiler.runner import Outcome, run_tasks
from profiler.spec import RunSpec
from profiler.store import Store


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def _run(folder: Path, elsewhere: Elsewhere, *methods: str, **options: Any) -> list[Outcome]:
    tasks = [fake_cells.task(method, seed=seed) for seed, method in enumerate(methods)]
    return list(run_tasks(tasks, Store(folder), elsewhere=elsewhere, job=fake_cells.run, **options))


def _statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {
        one.task.spec.method.split()[0]: one.record.status if one.record else one.usage_error
        for one in outcomes
    }


@pytest.fixture(scope="module")
def local_jobs() -> dict[str, Any]:
    pytest.importorskip("submitit")
    return {"cluster": "local"}


def test_jobs_give_their_records_and_a_lost_one_costs_its_own_cell_only(
    tmp_path: Path, local_jobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(remote, "RETRIES", 1)
    # How long a lost job's result may take to come through a network's file system.
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0.2)
    cluster = Elsewhere("slurm", slurm=local_jobs, folder=tmp_path / "jobs")
    outcomes = _run(tmp_path, cluster, "ok", "raise", "usage", "kill", "failed")
    assert _statuses(outcomes) == {
        "ok": "ok",
        "raise": "failed",
        "usage": "the target module matches nothing",
        "kill": "crashed",
        "failed": "failed",
    }
    assert len(Store(tmp_path).all()) == 4
    assert all(one.reused for one in _run(tmp_path, cluster, "ok"))
    assert not [
        one for one in psutil.Process().children(recursive=True) if "submitit" in _line(one)
    ]


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--executor", "rya"], "did you mean ray?"),
        (["--address", "here:1"], "--executor ray"),
        (["--slurm-args", "a=1"], "--executor slurm"),
        (["--executor", "slurm", "--slurm-args", "a"], "KEY=VALUE"),
        (["--executor", "slurm"], "no SLURM on this machine"),
        (["--executor", "slurm", "--slurm-args", "cluster=moon"], "slurm or local"),
        (["--executor", "slurm", "--slurm-args", "cluster=local", "--slurm-args", "colour=red"],
         "colour"),
        (["--executor", "ray", "--address", "127.0.0.1:1"], "no Ray cluster to be reached"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    for name, module in fake_cells.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("PATH", str(tmp_path))
    output = ["--output", str(tmp_path / "out"), "--quiet"]
    assert sweep.main(["--model", "tiny", *output, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(("kind", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_extra_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    cluster = asked_for(kind, None, [], tmp_path)
    assert cluster is not None
    with pytest.raises(UsageError, match=rf"pip install 'peft-profiler\[{kind}\]'"):
        cluster.pool("")


def test_a_cell_of_a_gpu_that_this_machine_lacks_is_sent_away_and_found_again(
    tmp_path: Path, local_jobs: dict[str, Any]
) -> None:
    """Its record is of another machine, with the same libraries."""
    cluster = Elsewhere("slurm", slurm=local_jobs, folder=tmp_path / "jobs")
    task = fake_cells.task(device="cuda")
    theirs = fake_cells.record(task.spec)
    theirs.environment |= {"device": "NVIDIA H100", "fingerprint": "0" * 12}
    Store(tmp_path).put(theirs)

    def job(spec: RunSpec) -> Record:
        raise AssertionError("it is stored")

    (outcome,) = run_tasks([task], Store(tmp_path), elsewhere=cluster, job=job)
    assert outcome.reused
    assert outcome.record == theirs


def test_a_node_with_other_libraries_is_refused_by_name() -> None:
    fn, args, kwargs, libraries, folder = remote.packed(len, ("abc",), {})
    assert remote.call(fn, args, kwargs, libraries, folder) == (True, 3)
    returned, error = remote.call(fn, args, kwargs, {**libraries, "peft": "0.1"}, folder)
    assert not returned
    assert "peft" in str(error)
    assert "0.1" in str(error)


# --- Ray ----------------------------------------------------------------------------------------


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("ray")
    # Short: a socket's path in it has at most 107 letters.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield from _nodes(folder, monkeypatch)


def _nodes(folder: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "RAY_health_check_period_ms": "200",
        "RAY_health_check_failure_threshold": "3",
        "RAY_health_check_initial_delay_ms": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        yield cluster, lambda: cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    finally:
        cluster.shutdown()
    _until(lambda: not _of_ray(folder))


def _of_ray(folder: str) -> list[str]:
    """The cluster's processes, which name their folder."""
    return [line for one in psutil.process_iter() if folder in (line := _line(one))]


def test_a_sweep_outlives_a_node_of_its_cluster(tmp_path: Path, nodes: Any) -> None:
    cluster, add = nodes
    second = add()
    cluster.wait_for_nodes()
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    place = Elsewhere("ray", address=cluster.address)

    def here() -> list[list[str]]:
        return [path.name.split()[1:] for path in meeting.glob("here *")]

    def end_one() -> None:
        _until(lambda: len({node for _, node, _ in here()}) == 2)
        cluster.remove_node(second, allow_graceful=False)
        _until(lambda: len(here()) == 3)  # the lost one runs again
        (meeting / "go").touch()

    ending = threading.Thread(target=end_one)
    ending.start()
    outcomes = _run(tmp_path / "store", place, *[f"meet {meeting}"] * 2)
    ending.join()
    assert [one.record and one.record.status for one in outcomes] == ["ok", "ok"]
    assert len(Store(tmp_path / "store").all()) == 2
