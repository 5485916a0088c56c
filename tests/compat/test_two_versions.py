"""Two environments with versions of their own, in one folder of records, and what differs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import transformers
from tiny import write

from profiler import diff, sweep
from profiler.store import Store

#: The environment that the other tests run in (Makefile).
NEWEST = Path(__file__).parents[2] / ".venv" / "bin" / "python"


@pytest.mark.skipif(
    Path(sys.prefix) == NEWEST.parents[1] or not NEWEST.exists(),
    reason="needs two environments: make compat after make test",
)
def test_two_versions_are_compared_cell_by_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path)["llama"]
    grid = ["--model", model, "--method", "lora", "--method", "ia3", "--device", "l40s"]
    flags = [*grid, "--seq-len", "16", "--output", str(tmp_path / "out"), "--quiet"]
    assert sweep.main(flags) == 0
    assert sweep.main(["--python", str(NEWEST), *flags]) == 0
    records = Store(tmp_path / "out").all()
    assert len(records) == 4
    versions = {str(record.environment["transformers"]) for record in records}
    assert len(versions) == 2
    assert transformers.__version__ in versions
    capsys.readouterr()
    between = [f"transformers={version}" for version in sorted(versions)]
    assert diff.main([str(tmp_path / "out"), "--between", *between]) == 0
    told = capsys.readouterr().out
    assert all(f"(transformers={version})" in told for version in versions)
    assert told.count("ran on: transformers") == 2
