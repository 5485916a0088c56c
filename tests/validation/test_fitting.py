"""How a group's fitted numbers are found."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from profiler.execute import run
from profiler.validation import cases, fitting
from profiler.validation.fitting import crossing


@given(
    zero=st.floats(min_value=100, max_value=900),
    slope=st.floats(min_value=1e-5, max_value=1e-2),
    values=st.lists(st.integers(min_value=1, max_value=2000), min_size=2, max_size=8, unique=True),
)
def test_it_is_where_the_line_through_the_points_is_zero(
    zero: float, slope: float, values: list[int]
) -> None:
    points = [(float(value), slope * (value - zero), 30) for value in values]
    assert crossing(points) == pytest.approx(zero, rel=1e-3, abs=0.5)


def test_one_value_is_itself() -> None:
    assert crossing([(640.0, 0.1, 30)]) == 640.0


def test_a_scan_finds_the_length_and_the_constant_that_were_put_in(tmp_path: Path) -> None:
    """Two methods are "measured" at a length of 24, with 5,000 bytes more after the step."""
    measure = {"unit": "bytes", "bound": 0.01}
    table = tmp_path / "table.csv"
    group = cases.Group.model_validate(
        {
            "id": "g",
            "title": "",
            "source": "",
            "card": "",
            "versions": {},
            "table": str(table),
            "columns": ["method"],
            "spec": {"model": tiny.write(tmp_path)["opt"], "device": "sim:cpu", "seq_len": 24},
            "runs": [
                {
                    "name": "longest",
                    "about": "",
                    "measures": [{**measure, "metric": "peak_allocated", "column": "peak"}],
                    "scan": {"field": "seq_len", "metric": "peak_allocated", "reason": "why"},
                },
                {
                    "name": "mean",
                    "about": "",
                    "measures": [
                        {
                            **measure,
                            "metric": "after_step_allocated",
                            "column": "after",
                            "constant_reason": "why",
                        }
                    ],
                },
            ],
        }
    )
    rows = []
    for method in ("ia3", "lora:r=2"):
        case = cases.Case(id=method, group="g", row={"case": method, "method": method})
        record = run(group.spec_of(case, group.runs[0]))
        assert record.memory.after_step_allocated is not None
        after = record.memory.after_step_allocated + 5000
        rows.append({**case.row, "peak": record.memory.peak_allocated, "after": after})
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = fitting.scan(group, [16, 24, 32], tmp_path / "out", workers=1, quiet=True)
    points = dict(line.strip(" [],").split(", ", 1) for line in lines if line.startswith("    ["))
    assert points["24"] == "0.000000, 2"
    assert float(points["16"].split(",")[0]) < 0 < float(points["32"].split(",")[0])
    assert lines[-1] == "constant = 5000"
