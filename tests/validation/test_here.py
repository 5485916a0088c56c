"""This machine's pairs: what they are, and one of them really measured and predicted."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from profiles import profile

from profiler import validate
from profiler.calibration import cpu, host
from profiler.errors import ProfilerError
from profiler.record import Record
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.validation import here
from profiler.validation.here import PAIRS
from profiler.validation.result import Validation


def test_there_are_pairs_enough_and_no_two_are_one() -> None:
    assert len(PAIRS) >= 12
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)
    assert len({pair.method for pair in PAIRS}) >= 8
    assert len({pair.model for pair in PAIRS}) >= 5


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_each_pair_can_be_run(pair: here.Pair) -> None:
    cell = resolve(pair.spec())
    assert cell.unsupported == ""
    assert cell.spec.device == "cpu"


def test_no_pair_is_in_the_calibration() -> None:
    calibrated = [config["hidden_size"] for config in host._SMALL.values()]
    for pair in PAIRS:
        assert resolve(pair.spec()).model.config.get("hidden_size", 768) not in calibrated


def command(*arguments: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = validate.main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def test_a_pair_is_predicted_and_measured_and_stands_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "calibrate", lambda **_: profile())
    status, out, err = command("--here", "--quick", "--output", tmp_path)
    assert status == 0, err  # a quick calibration claims nothing
    (measured,) = (
        Record.from_dict(one) for one in json.loads((tmp_path / "here.json").read_text())
    )
    assert measured.source == "measured"
    assert measured.time is not None
    assert measured.time.step > 0
    (figure,) = Validation.from_json((tmp_path / "validation.json").read_bytes()).figures
    assert (figure.group, figure.metric) == ("here", "time.step")
    assert figure.measured == measured.time.step
    assert figure.predicted
    assert figure.verdict == "no claim"
    page = (tmp_path / "index.html").read_text()
    for text in ("Abacus", figure.case, "This machine, calibrated"):
        assert text in page
    assert figure.case in out


def test_a_dry_run_lists_the_pairs_and_measures_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cpu, "calibrate")
    status, out, _ = command("--here", "--dry-run", "--output", tmp_path / "none")
    assert status == 0
    assert out.splitlines() == [f"here {pair.name} (step)" for pair in PAIRS]
    assert not (tmp_path / "none").exists()


def test_a_pair_without_a_result_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from profiler import isolation

    def refused(cell: object, **_: object) -> Record:
        return Record(id="x", status="refused", error="too large", source="measured", spec={})

    monkeypatch.setattr(isolation, "run_isolated", refused)
    pair = here.Pair("lora", "gpt2")
    with pytest.raises(ProfilerError, match=r"lora gpt2 1x128 has no result here: too large"):
        here.measured([pair], tmp_path, say=lambda line: None)


def test_processes_get_their_threads_and_no_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with here._threads(1):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_bound_is_claimed_unless_the_calibration_was_a_quick_one(tmp_path: Path) -> None:
    pairs = [here.Pair("lora", "gpt2")]
    for quick in (False, True):
        (entry,) = here.entries(pairs, [0.5], tmp_path, quick=quick)
        (wanted,) = entry.wanted
        assert wanted.bound == (None if quick else here.BOUND)
        assert entry.spec == RunSpec(
            model="gpt2",
            method="lora",
            seq_len=128,
            device="sim:cpu",
            steps=1,
            calibration=str(tmp_path / "calibration.json"),
        )
