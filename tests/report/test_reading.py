"""A large folder is read in outline: whole are only the records that the page takes apart."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_cells
import pytest

from profiler import spec, store, sweep
from profiler.record import Record
from profiler.report import __main__ as report
from profiler.report import reading
from profiler.report.thinning import DETAILED
from profiler.store import DETAILS, Store

CELLS = 200


def _made(seed: int) -> Record:
    spec = fake_cells.spec(f"ok {seed}", seed=seed)
    modules = {"layers.0": {"parameters": 2**30 + seed}}
    made = fake_cells.record(spec, flops={"total": 1, "phases": {}, "modules": {"a": {"b": 1}}})
    made.memory.modules = modules
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Store:
    study = Store(tmp_path_factory.mktemp("study"))
    for seed in range(CELLS):
        study.put(_made(seed))
    return study


class _Reads:
    """Counts the files that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole = self.outlined = 0
        read = store._read

        def counted(path: Path, *, whole: bool = True) -> Record | None:
            self.whole += whole
            self.outlined += not whole
            return read(path, whole=whole)

        monkeypatch.setattr(store, "_read", counted)


def test_an_outline_is_the_record_without_its_details(study: Store) -> None:
    outlines = study.all(whole=False)
    assert len(outlines) == CELLS
    for whole, outline in zip(study.all(), outlines, strict=True):
        expected = whole.to_dict()
        for part, names in DETAILS.items():
            for name in names:
                if expected[part] is not None:
                    expected[part][name] = outline.to_dict()[part][name]
                    assert expected[part][name] in (None, {}, [])
        assert outline.to_dict() == expected


def test_a_small_folder_is_read_whole_and_once(
    study: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = _Reads(monkeypatch)
    report.run([str(study.folder), "--output", str(tmp_path)])
    assert (reads.whole, reads.outlined) == (CELLS, 0)


def test_of_a_large_folder_a_bounded_number_is_read_whole(
    study: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WHOLE", CELLS - 1)
    reads = _Reads(monkeypatch)
    path, problems = report.run([str(study.folder), "--output", str(tmp_path)])
    assert reads.outlined == CELLS
    assert 0 < reads.whole <= DETAILED
    assert problems == []
    assert "ok 199" in path.read_text()


def test_a_path_that_is_no_text_is_outlined_too(tmp_path: Path) -> None:
    made = _made(0)
    made.error = "\udcff/config.json"
    Store(tmp_path).put(made)
    (outline,) = Store(tmp_path).all(whole=False)
    assert outline.error == made.error
    assert not outline.memory.modules


def test_what_is_no_record_is_told_in_outline_as_it_is_whole(study: Store, tmp_path: Path) -> None:
    broken = Store(tmp_path)
    broken.prepare()
    for name, text in {"a": "{", "b": "[]", "c": "", "d": '{"schema": 1, "memory": 3}'}.items():
        (broken.records / f"{name}.json").write_text(text)
    found: list[list[str]] = [[], []]
    for whole in (True, False):
        assert broken.all(found[whole], whole=whole) == []
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_a_dry_run_reads_no_record_and_evaluates_no_type_twice(
    study: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, module in fake_cells.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    reads = _Reads(monkeypatch)
    spec._hints.cache_clear()
    flags = [word for seed in range(CELLS) for word in ("--method", f"ok {seed}")]
    arguments = [*flags, "--model", "tiny", "--seed", "0", "--output", str(study.folder)]
    assert sweep.main([*arguments, "--dry-run", "--format", "csv"]) == 0
    listed = capsys.readouterr().out.splitlines()[1:]
    assert [line.rsplit(",", 1)[1] for line in listed] == ["True"] + ["False"] * (CELLS - 1)
    assert (reads.whole, reads.outlined) == (0, 0)
    assert spec._hints.cache_info().misses == 1
