"""The file that a calibration writes: whole, checked, and known by its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from profiles import content, profile

from profiler.errors import StoreError, UsageError
from profiler.hardware import device_profile


def written(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cpu.json"
    profile().write(path)
    found = device_profile.read(path)
    assert found == profile()
    assert found.sha256 == profile().sha256


def test_its_content_names_it_and_not_its_file(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        profile().write(tmp_path / name)
    found = [device_profile.read(tmp_path / name).sha256 for name in ("a.json", "b.json")]
    assert found[0] == found[1] != profile(fault=2e-9).sha256


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "not a device profile"),
        ("{", "not a device profile"),
        ("[1, 2]", "no schema"),
        ({"a": 1}, "no schema"),
        ({**content(), "schema": 7}, "schema 7"),
        ({key: value for key, value in content().items() if key != "host"}, "host"),
        ({**content(), "more": 1}, "more"),
        ({**content(), "products": []}, "products"),
        ({**content(), "threads": 0}, "threads"),
        ({**content(), "fault": -1.0}, "fault"),
        ({**content(), "fault": float("nan")}, "fault"),
        (
            {**content(), "kernels": [{"op": "a", "dtype": "", "points": [(2, 1.0), (1, 1.0)]}]},
            "do not grow",
        ),
        ({**content(), "kernels": [{"op": "a", "dtype": "", "points": [(2, 0.0)]}]}, "kernels.0"),
    ],
)
def test_what_is_no_profile_is_refused_in_one_line(tmp_path: Path, data: Any, said: str) -> None:
    path = written(tmp_path / "cpu.json", data)
    with pytest.raises(UsageError) as error:
        device_profile.read(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no device profile at .*none\.json: No such file"):
        device_profile.read(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        profile().write(tmp_path / "file" / "cpu.json")
