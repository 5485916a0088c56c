"""What a validation gave, as plain data: `validation.json`, from which the page is drawn."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from profiler import stored
from profiler.validation.cases import Scan
from profiler.validation.metrics import Kind

#: Version of the file's shape.
SCHEMA = 1

#: Whether a prediction is near enough. `within` its bound; off, but for a known reason
#: (`explained`) or with other libraries than the bound is claimed for (`other versions`); off and
#: `unexplained`; `no claim` where no bound is claimed; `no result` where nothing was predicted.
Verdict = Literal["within", "explained", "other versions", "unexplained", "no claim", "no result"]

#: Verdicts that say that something is wrong.
WRONG: frozenset[Verdict] = frozenset(("unexplained", "no result"))


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Data):
    """One prediction beside what was measured. Bytes, seconds or a count, by `kind`.

    Attributes:
        case: the published run; `run`: which simulation of it; `cell`: that one's record.
        measured: by others (the published number), or by the user.
        predicted: simulated, `constant` included; None without a result.
        constant: what was added to the simulation, the same for all cases.
        error: predicted less measured, as a share of the measured.
        explanation: why it is off, as far as is known.
        fitted: whether the model's global constants were fitted to it.
    """

    case: str
    group: str
    run: str
    metric: str
    kind: Kind
    measured: int | float
    predicted: int | float | None
    constant: int = 0
    error: float | None
    bound: float | None
    verdict: Verdict
    explanation: str = ""
    fitted: bool = False
    cell: str = ""


class CellInfo(_Data):
    """One simulation: its record's id, what was run, and how it ended."""

    id: str
    case: str
    group: str
    run: str
    label: str
    status: str
    error: str = ""
    fingerprint: str = ""
    versions: str = ""
    approximations: list[str] = Field(default_factory=list)


class Constant(_Data):
    """A number that is added to every prediction of a metric."""

    metric: str
    value: int
    reason: str


class RunInfo(_Data):
    """Which simulation stands for what was measured, and what was fitted for it."""

    name: str
    about: str
    scan: Scan | None = None
    value: float | None = None
    constants: list[Constant] = Field(default_factory=list)


class GroupInfo(_Data):
    """Where the measured figures of a group come from."""

    id: str
    title: str
    source: str
    card: str
    versions: dict[str, str] = Field(default_factory=dict)
    requires: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    runs: list[RunInfo] = Field(default_factory=list)
    given: bool = False
    """Whether the figures are a user's own, and not published."""


class Validation(_Data):
    """All that `python -m profiler.validate` found out."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    command: str = ""
    environments: dict[str, dict[str, Any]] = Field(default_factory=dict)
    groups: list[GroupInfo]
    cells: list[CellInfo]
    figures: list[Figure]

    def to_json(self) -> str:
        return stored.to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Validation:
        """The validation of `to_json`'s output.

        Raises:
            StoreError: `text` is none, or of another schema.
        """
        return stored.from_json(cls, text, schema=SCHEMA, what="a validation")

    @property
    def passed(self) -> bool:
        """Whether every prediction is within its bound, or known not to be."""
        return not any(figure.verdict in WRONG for figure in self.figures)
