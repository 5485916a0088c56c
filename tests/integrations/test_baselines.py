"""What a record is held to, and what a baseline's file is called."""

from __future__ import annotations

from pathlib import Path

import fake_cells
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import StoreError, UsageError
from profiler.integrations import baselines
from profiler.record import Record


def record(peak: int = 100_000, **changes: object) -> Record:
    memory = {
        "peak_allocated": peak,
        "phases": {"forward": peak},
        "at_peak": {"activations": peak},
    }
    flops = {"total": changes.pop("flops", 1000), "phases": {}}
    return fake_cells.record(fake_cells.spec(), memory=memory, flops=flops, **changes)


def judged(after: Record, tolerance: str | None = None) -> str:
    limit = baselines.tolerance_of(tolerance)
    return baselines.judge(record(), after, limit, "base.json")


def test_equal_is_equal_and_time_is_not_held() -> None:
    slow = {"source": "predicted", "step": 9.0, "phases": {}, "tokens_per_second": 1.0}
    assert judged(record()) == ""
    assert judged(record(time=slow)) == ""


@pytest.mark.parametrize("peak", [100_001, 99_999])
def test_one_byte_is_told_both_ways(peak: int) -> None:
    first = judged(record(peak)).splitlines()[0]
    assert first.startswith(f"peak allocated {'+' if peak > 100_000 else '−'}1 byte")


@pytest.mark.parametrize(
    ("peak", "tolerance", "held"),
    [
        (100_100, "0.1%", True),
        (100_101, "0.1%", False),
        (99_900, "0.1%", True),
        (99_899, "0.1%", False),
        (101_024, "1KiB", True),
        (101_025, "1KiB", False),
        (100_001, "0", False),
    ],
)
def test_a_tolerance_is_a_bound(peak: int, tolerance: str, held: bool) -> None:
    assert (judged(record(peak), tolerance) == "") is held


def test_a_size_is_no_bound_of_counts() -> None:
    assert "FLOPs" in judged(record(flops=1001), "64MiB").splitlines()[0]
    assert judged(record(flops=1001), "0.1%") == ""


def test_another_end_or_another_source_is_never_equal() -> None:
    assert judged(record(status="oom")).startswith("was ok and is oom")
    assert "simulated and this run is measured" in judged(record(source="measured"))


def test_a_wrong_tolerance_is_one_line() -> None:
    with pytest.raises(UsageError, match="tolerance is a share"):
        baselines.tolerance_of("-1%")


def test_a_baseline_survives_a_write_that_fails(tmp_path: Path) -> None:
    path = baselines.path_of(tmp_path / "test_it.py", "test_one")
    baselines.write(path, record())
    read = baselines.read(path)
    assert read is not None
    assert baselines.judge(read, record(), None, "") == ""
    assert baselines.across(read, record()) == ""
    with pytest.raises(StoreError, match="cannot write"):
        baselines.write(path / "below", record())
    assert baselines.read(path) == read


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_names_stay_in_the_folder_and_apart(texts: list[str]) -> None:
    names = [baselines.safe_name(text) for text in texts]
    assert names[0] != names[1]
    for name in names:
        assert name == Path(name).name
        assert name.isascii()
        assert len(name) < 100
        assert name not in (".", "..")
        assert not name.startswith(("-", "."))


def test_a_plain_name_stays_as_it_is() -> None:
    path = baselines.path_of(Path("tests/test_it.py"), "TestOne::test_two")
    assert path == Path("tests/peft_baselines/test_it/TestOne.test_two.json")
    assert baselines.path_of(Path("tests/test_it.py"), "TestOne::test_two", "b") != path
