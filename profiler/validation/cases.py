"""The published runs that are shipped, as data: a TOML file and a CSV table for each group.

The TOML file of a group says where its figures come from, with which libraries they were measured,
what all of its cases have in common, and which column of the table is which metric in which unit.
The table holds the published numbers as they stand in their source, a row for each case.
"""

from __future__ import annotations

import csv
import tomllib
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from profiler.spec import RunSpec
from profiler.validation.metrics import METRICS

CASES = Path(__file__).parent / "cases"

#: Units of published numbers: what one of it is, in bytes, seconds or things.
UNITS = {
    "bytes": Decimal(1),
    "MiB": Decimal(2**20),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
    "count": Decimal(1),
}

#: Fields that may name a file, here one beside the tables.
_PATHS = ("method", "lengths", "calibration")
#: Fields that are whole numbers.
_WHOLE = frozenset(("batch_size", "seq_len", "grad_accumulation"))


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(_Data):
    """One published number of each case.

    Attributes:
        column: of the group's table.
        bound: relative error that is claimed not to be exceeded; None where none is claimed.
        rounded: Whether the source gives whole units only; half of one is then no error.
        constant: Added to each prediction: one number for the whole group, in base units.
        constant_reason: What it stands for.
        fitted: Names of cases whose numbers the model's global constants were fitted to.
    """

    metric: str
    column: str
    unit: Literal["bytes", "MiB", "s", "ms", "count"]
    bound: float | None = Field(default=None, ge=0)
    rounded: bool = False
    constant: int = 0
    constant_reason: str = ""
    fitted: tuple[str, ...] = ()

    def model_post_init(self, context: Any) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"no metric {self.metric!r}")

    @property
    def resolution(self) -> float:
        """The step in which the source gives the number, in base units."""
        return float(UNITS[self.unit]) if self.rounded else 0.0


class Scan(_Data):
    """How the one free field of a run was found: the median signed error at each value tried.

    Attributes:
        points: value, median signed error of the metric, number of cases.
    """

    field: str
    metric: str
    reason: str
    points: list[tuple[int, float, int]] = Field(default_factory=list)


class Run(_Data):
    """One simulation of each case, and what is compared with it."""

    name: str
    about: str
    spec: dict[str, Any] = Field(default_factory=dict)
    measures: list[Measure]
    scan: Scan | None = None


class Explanation(_Data):
    """Why figures of some cases are off. Patterns are those of file names."""

    cases: list[str]
    metrics: list[str]
    text: str

    def covers(self, case: str, metric: str) -> bool:
        return any(fnmatchcase(case, one) for one in self.cases) and any(
            fnmatchcase(metric, one) for one in self.metrics
        )


class Case(_Data):
    """One published run: the row of its table, as text."""

    id: str
    group: str
    row: dict[str, str]


class Group(_Data):
    """Published runs of one source.

    Attributes:
        versions: of the libraries that they were measured with.
        requires: libraries with which alone the bounds are claimed.
        columns: columns of the table that are fields of `RunSpec`.
        quick: ids of the cases and names of the runs of `--quick`.
    """

    id: str
    title: str
    source: str
    card: str
    versions: dict[str, str]
    requires: dict[str, str] = Field(default_factory=dict)
    table: str
    spec: dict[str, Any]
    columns: list[str]
    runs: list[Run]
    quick_cases: list[str] = Field(default_factory=list)
    quick_runs: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    explanations: list[Explanation] = Field(default_factory=list)

    @cached_property
    def cases(self) -> list[Case]:
        """Its cases, in the table's order."""
        with (CASES / self.table).open(newline="", encoding="utf-8") as file:
            return [Case(id=row["case"], group=self.id, row=row) for row in csv.DictReader(file)]

    def case(self, id: str) -> Case:
        """The case of that id. Raises `KeyError`."""
        return {case.id: case for case in self.cases}[id]

    def spec_of(self, case: Case, run: Run) -> RunSpec:
        """The simulation of a case."""
        fields: dict[str, Any] = {**self.spec, **run.spec}
        for name in self.columns:
            fields[name] = _value(name, case.row[name])
        for name in _PATHS:
            if (CASES / str(fields.get(name))).is_file():
                fields[name] = str(CASES / fields[name])
        return RunSpec.from_dict(fields)

    def explanation(self, case: str, metric: str) -> str:
        """What is known of why a figure is off, "" if nothing is."""
        return next((item.text for item in self.explanations if item.covers(case, metric)), "")


def published(case: Case, measure: Measure) -> int | float | None:
    """A published number in bytes, seconds or things; None where the source has none."""
    text = case.row[measure.column]
    if not text:
        return None
    number = Decimal(text) * UNITS[measure.unit]
    return int(number) if number == number.to_integral_value() else float(number)


def load() -> list[Group]:
    """Every group that is shipped, by its file's name."""
    return [
        Group.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        for path in sorted(CASES.glob("*.toml"))
    ]


def group(id: str) -> Group:
    """The group of that id. Raises `KeyError`."""
    return {item.id: item for item in load()}[id]


def _value(name: str, text: str) -> Any:
    if name == "model_override":
        return tuple(text.split())
    return int(text) if name in _WHOLE else text
