"""Finds a group's fitted numbers: the one length for all of its cases, the one constant.

What is found is written into the group's file by hand, where everyone can read it. No number is
fitted to one case.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from profiler.errors import UsageError
from profiler.validation.cases import Group, Measure, Run, published
from profiler.validation.metrics import metric
from profiler.validation.running import simulate


def scan(
    group: Group, values: Sequence[int], output: Path, *, workers: int, quiet: bool
) -> list[str]:
    """Lines for the group's file: the median signed error at each value of the scanned field, and
    the median of what is missing where a constant is added.

    Raises:
        UsageError: nothing of the group is fitted.
    """
    lines: list[str] = []
    for run in group.runs:
        if run.scan is not None:
            (measure,) = [one for one in run.measures if one.metric == run.scan.metric]
            points = []
            for value in values:
                tried = run.model_copy(update={"spec": {**run.spec, run.scan.field: value}})
                pairs = _pairs(group, tried, measure, output, workers, quiet)
                points.append((value, *_median([(p - m) / m for p, m in pairs])))
            lines += [f"# {run.name}: {run.scan.field}, median signed error, cases", "points = ["]
            lines += [f"    [{value}, {error:.6f}, {count}]," for value, error, count in points]
            lines += ["]", f"# median signed error is 0 at {crossing(points):.1f}"]
        for measure in run.measures:
            if measure.constant_reason:
                pairs = _pairs(group, run, measure, output, workers, quiet)
                constant, count = _median([m - p for p, m in pairs])
                lines.append(f"# {run.name}: {measure.metric}, {count} cases")
                lines.append(f"constant = {round(constant)}")
    if not lines:
        raise UsageError(f"nothing of {group.id} is fitted")
    return lines


def crossing(points: Sequence[tuple[float, float, int]]) -> float:
    """Where the straight line through the points (value, error, cases) is zero: least squares.

    >>> round(crossing([(640, -0.01, 3), (660, 0.01, 3)]), 3)
    650.0
    """
    import numpy as np

    if len(points) < 2:
        return float(points[0][0])
    slope, offset = np.polyfit([one[0] for one in points], [one[1] for one in points], 1)
    return float(-offset / slope) if slope else float("nan")


def _pairs(
    group: Group, run: Run, measure: Measure, output: Path, workers: int, quiet: bool
) -> list[tuple[float, float]]:
    """Predicted (no constant added) and published, of each case that has both."""
    specs = [group.spec_of(case, run) for case in group.cases]
    records = simulate(specs, output, workers=workers, quiet=quiet)
    found = [
        (metric(measure.metric).read(records[spec]), published(case, measure))
        for case, spec in zip(group.cases, specs, strict=True)
    ]
    return [(p, m) for p, m in found if p is not None and m is not None]


def _median(values: Sequence[float]) -> tuple[float, int]:
    import pandas as pd

    return float(pd.Series(values, dtype=float).median()), len(values)
