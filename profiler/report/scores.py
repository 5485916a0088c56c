"""Scores that methods reached, to be held against what they cost: a user's, or published ones.

A published table is one file in `scores/`; a user's is a CSV file with the columns `method` and
`score`, and `model` and `latency` where they are known.
"""

from __future__ import annotations

import csv
import io
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from profiler.errors import UsageError
from profiler.report.cells import Cell
from profiler.report.published import meets
from profiler.report.text import clean

_COLUMNS = ("method", "score", "model", "latency")


class ScoredRow(BaseModel):
    """A method's score. `match` is as of `profiler.report.published`; `latency` is inference time,
    of a token or relative, in one unit for the whole table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    match: dict[str, Any] = Field(default_factory=dict)
    model: str = ""
    score: float
    latency: float | None = Field(default=None, gt=0)

    def fits(self, cell: Cell) -> bool:
        """Whether it is the score of a cell's method on its model."""
        if self.model and self.model != cell.record.spec.get("model"):
            return False
        if self.match:
            return meets(cell.record.spec, self.match)
        method = cell.record.spec.get("method")
        preset = method.get("preset", "") if isinstance(method, dict) else ""
        return self.method in (cell.name, cell.short, clean(cell.record.label), preset)


class ScoreTable(BaseModel):
    """Scores of one source. `models` are those that they are of, empty for any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    source: str
    metric: str
    models: list[str] = Field(default_factory=list)
    rows: list[ScoredRow]

    def row_of(self, cell: Cell) -> ScoredRow | None:
        """A cell's row; one that names its method as it is typed comes before its preset's."""
        if self.models and cell.record.spec.get("model") not in self.models:
            return None
        found = [row for row in self.rows if row.fits(cell)]
        exact = [row for row in found if row.method in (cell.name, clean(cell.record.label))]
        return next(iter(exact or found), None)


@dataclass(frozen=True, slots=True)
class Scored:
    """The cells of a page that have a score, and the table that it is from."""

    table: ScoreTable
    rows: dict[str, ScoredRow]


def load() -> list[ScoreTable]:
    """Every table that the package ships, by file name."""
    folder = files("profiler.report") / "scores"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".toml"))
    return [
        ScoreTable.model_validate(tomllib.loads((folder / name).read_text(encoding="utf-8")))
        for name in names
    ]


def of_cells(cells: Sequence[Cell], given: ScoreTable | None = None) -> Scored | None:
    """The scores of the page's cells: the user's, else those of the shipped table that has most."""
    best: Scored | None = None
    for table in [given] if given is not None else load():
        found = {cell.key: row for cell in cells if (row := table.row_of(cell)) is not None}
        if found and (best is None or len(found) > len(best.rows)):
            best = Scored(table, found)
    return best


def read(path: Path) -> ScoreTable:
    """A user's table.

    Raises:
        UsageError: it cannot be read, or a line of it is wrong; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UsageError(f"--scores {path}: {reason}; give a CSV file: method,score") from None
    rows = []
    try:
        reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, strict=True)
        names = tuple(reader.fieldnames or ())
        if not {"method", "score"} <= set(names) or set(names) - set(_COLUMNS):
            raise UsageError(
                f"--scores {path}: its first line must name the columns method and score, and may "
                f"name model and latency; it is {','.join(names)[:80]!r}"
            )
        for line in reader:
            rows.append(_row(line, f"--scores {path}, line {reader.line_num}"))
    except csv.Error as error:
        raise UsageError(f"--scores {path}: {error}") from None
    if not rows:
        raise UsageError(f"--scores {path} has no line below the first")
    return ScoreTable(title=path.name, source=f"given in {path.name}", metric="score", rows=rows)


def _row(line: dict[str, Any], where: str) -> ScoredRow:
    if None in line or None in line.values():
        raise UsageError(f"{where}: it has not as many columns as the first line")
    if not line["method"].strip():
        raise UsageError(f"{where}: no method")
    numbers = {}
    for name in ("score", "latency"):
        text = (line.get(name) or "").strip()
        if not text and name == "latency":
            continue
        try:
            numbers[name] = float(text)
        except ValueError:
            numbers[name] = math.nan
        if not math.isfinite(numbers[name]) or numbers[name] < 0:
            raise UsageError(f"{where}: {name} must be a number of at least 0, not {text!r}")
    return ScoredRow(
        method=line["method"].strip(),
        model=(line.get("model") or "").strip(),
        score=numbers["score"],
        latency=numbers.get("latency") or None,
    )
