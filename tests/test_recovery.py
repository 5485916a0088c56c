"""A sweep that is killed loses nothing, repeats nothing and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fake_cells
import pytest
import recovery_driver
from recovery_driver import CELLS, MOMENTS

from profiler import files, locks
from profiler.errors import StoreError
from profiler.record import Record
from profiler.runner import run_tasks
from profiler.spec import RunSpec
from profiler.store import Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and flock")

DRIVER = Path(recovery_driver.__file__)


def _drive(folder: Path, workers: int, *kill: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, DRIVER, folder, str(workers), *kill],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
    )


def _ran(folder: Path) -> Counter[int]:
    """How often each cell ran."""
    ran = folder / "ran"
    return Counter(int(line) for line in ran.read_text().split()) if ran.exists() else Counter()


def _stored(folder: Path) -> dict[int, bytes]:
    """The content of each cell's record."""
    if not (folder / "records").exists():
        return {}
    return {one.spec["seed"]: one.to_json().encode() for one in Store(folder).all()}


def _left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


#: 30 moments, each with whom it hits and how many workers there are.
_RANDOM = random.Random(2026)
KILLS = [
    (victim, workers, moment)
    for victim, workers in [("sweep", 1), ("sweep", 2), ("below", 2)]
    for moment in sorted(_RANDOM.sample(range(1, MOMENTS), 10))
]


@pytest.mark.parametrize(("victim", "workers", "moment"), KILLS)
def test_a_killed_sweep_is_finished_by_the_same_command(
    tmp_path: Path, victim: str, workers: int, moment: int
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with _drive(folder, workers, victim, str(moment)) as process:
        _, said = process.communicate(timeout=60)  # until the last of its processes has ended
    finished = _stored(folder)
    if victim == "sweep":
        assert process.returncode == -signal.SIGKILL
        assert len(finished) < CELLS
    elif process.returncode == 0:  # without a process below it, the sweep killed itself
        assert len(finished) == CELLS, said
    ran = _ran(folder)
    again = recovery_driver.sweep(folder, workers=1)
    assert {task.spec.seed for task in again} == set(range(CELLS)) - finished.keys()
    assert _ran(folder) - ran == Counter(task.spec.seed for task in again)
    complete = _stored(folder)
    assert complete.keys() == set(range(CELLS))
    assert complete.items() >= finished.items()
    assert [one.error for one in Store(folder).all() if one.status != "ok"] == []
    assert _left_behind(folder) == []


def test_two_sweeps_on_one_folder_share_the_work(tmp_path: Path) -> None:
    both = [_drive(tmp_path, workers) for workers in (1, 2)]
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert _ran(tmp_path) == dict.fromkeys(range(CELLS), 1)
    assert _stored(tmp_path).keys() == set(range(CELLS))
    assert _left_behind(tmp_path) == []


def test_what_another_sweep_is_at_work_on_is_waited_for_and_taken_over(tmp_path: Path) -> None:
    """The other one holds a cell, and dies without a result while this one waits for it."""
    store = Store(tmp_path)
    store.prepare()
    task = recovery_driver.tasks(tmp_path)[0]
    child = (
        "import sys; from profiler.store import Store; c = Store(sys.argv[1]).claim(sys.argv[2])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{child}; print(c, flush=True); input()", tmp_path, task.id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert b"Claim" in other.stdout.readline()
        store.prepare()  # a third one that starts leaves its claim alone
        assert len(_left_behind(tmp_path)) == 1
        said: list[str] = []

        def waiting(line: str) -> None:
            said.append(line)
            other.kill()

        ran = list(run_tasks([task], store, job=fake_cells.run, warn=waiting))
    assert [one.record and one.record.status for one in ran] == ["ok"]
    assert len(said) == 1
    assert "another process" in said[0]
    assert _left_behind(tmp_path) == []


def test_what_another_sweep_has_done_meanwhile_is_taken_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = recovery_driver.tasks(tmp_path)[:2]

    def job(spec: RunSpec) -> Record:
        store.put(fake_cells.record(second.spec, error="the other's"))
        return fake_cells.run(spec)

    outcomes = list(run_tasks([first, second], store, job=job))
    assert [one.reused for one in outcomes] == [False, True]
    assert [None if one.record is None else one.record.error for one in outcomes] == [
        None,
        "the other's",
    ]
    again = list(run_tasks([first, second], store, job=job, overwrite=True))
    assert [one.reused for one in again] == [False, False]


def test_where_there_are_no_locks_nothing_is_kept_off_and_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    (tmp_path / "records").mkdir()
    writing = tmp_path / "records" / ".0123456789abcdef.tmp"
    writing.touch()
    assert len(recovery_driver.sweep(tmp_path, workers=1)) == CELLS
    assert _left_behind(tmp_path) == [writing.name]


def test_a_start_clears_away_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    kept = [records / name for name in (".hidden", "x.tmp", ".0123.tmp", ".0123456789abcdef.tmp")]
    for path in kept:
        path.write_text("half")
    link = records / ".fedcba9876543210.tmp"
    link.symlink_to(kept[0])
    (tmp_path / ".0123456789abcdef.tmp").touch()
    (records / ".some-cell.claim").touch()
    with kept[-1].open("ab") as writing:
        assert locks.lock(writing.fileno())
        Store(tmp_path).prepare()
        assert sorted(records.iterdir()) == sorted([*kept, link])
    Store(tmp_path).prepare()
    assert not kept[-1].exists()
    assert kept[0].read_text() == "half"


def test_what_is_cleared_away_under_a_writer_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a file's making and its lock another start may take it for left behind."""
    synced = os.fsync

    def cleared(handle: int) -> None:
        synced(handle)
        monkeypatch.setattr(os, "fsync", synced)
        for path in tmp_path.glob(".*.tmp"):
            path.unlink()

    monkeypatch.setattr(os, "fsync", cleared)
    files.replace_file(tmp_path / "page", b"all of it")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    assert (tmp_path / "page").read_bytes() == b"all of it"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]).returncode:
        pytest.skip("may not mount a disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a disk")
def test_a_full_disk_is_told_and_loses_nothing(small_disk: Path) -> None:
    store = Store(small_disk)
    store.prepare()
    (small_disk / "other").write_bytes(bytes(600_000))
    warnings: list[str] = []
    tasks = recovery_driver.tasks(small_disk)
    outcomes = list(run_tasks(tasks, store, job=fake_cells.run, warn=warnings.append))
    kept = [one for one in outcomes if one.kept]
    assert 0 < len(kept) < CELLS
    assert all("No space left" in line and "\n" not in line for line in warnings)
    assert len(warnings) == CELLS - len(kept)
    assert {one.id for one in store.all()} == {one.task.id for one in kept}
    with pytest.raises(StoreError, match="No space left"):
        Store(small_disk).prepare()
    assert _left_behind(small_disk) == []
    (small_disk / "other").unlink()
    assert len(recovery_driver.sweep(small_disk, workers=1)) == CELLS - len(kept)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="Read-only"):
        Store(small_disk).prepare()
    again = list(run_tasks(tasks, store, job=fake_cells.run, warn=warnings.append))
    assert all(one.reused for one in again)


def test_a_folder_that_is_removed_meanwhile_is_told_and_not_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()

    def job(spec: RunSpec) -> Record:
        shutil.rmtree(store.folder, ignore_errors=True)
        return fake_cells.run(spec)

    warnings: list[str] = []
    (outcome,) = run_tasks([fake_cells.task()], store, job=job, warn=warnings.append)
    assert outcome.record is not None
    assert not outcome.kept
    assert len(warnings) == 1
    assert "gone" in warnings[0]
    assert not store.folder.exists()
