"""Static figures as files: each panel in each format, the same for the same records."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.record import Record
from profiler.report import build
from profiler.report.__main__ import main

BEGINS = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}


def test_each_panel_is_written_in_each_format(study: list[Record], tmp_path: Path) -> None:
    build(study[:3], tmp_path / "a", title="t", figures=tuple(BEGINS))
    written = {path.name: path.read_bytes() for path in (tmp_path / "a" / "figures").iterdir()}
    names = {name.partition(".")[0] for name in written}
    assert {"memory-0-0", "rest-0-0", "phases-0-0", "time-0-0", "flops-0-0"} <= names
    assert len(written) == 3 * len(names)
    for name, data in written.items():
        assert data.startswith(BEGINS[name.rpartition(".")[2]])
    assert b"base parameters" in written["memory-0-0.svg"]  # the legend
    build(study[:3], tmp_path / "b", title="t", figures=("pdf",))
    again = (tmp_path / "b" / "figures" / "memory-0-0.pdf").read_bytes()
    assert again == written["memory-0-0.pdf"]


def test_an_unknown_format_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--figures", "svg,gif"]) == 2
    err = capsys.readouterr().err
    assert "gif" in err
    assert "png" in err
    assert err.count("\n") == 1
