"""From cases to simulations, and from their records to verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from profiler.record import Record
from profiler.report.text import listing
from profiler.spec import RunSpec
from profiler.validation.cases import Case, Group, Run, published
from profiler.validation.metrics import metric
from profiler.validation.result import Constant, Figure, GroupInfo, RunInfo, Verdict


@dataclass(frozen=True, slots=True)
class Wanted:
    """A measured number that a simulation is to predict; see `cases.Measure`."""

    metric: str
    measured: int | float
    bound: float | None
    resolution: float = 0.0
    constant: int = 0
    explanation: str = ""
    fitted: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One simulation, and the measured numbers that are held against it.

    Attributes:
        versions: of the libraries that the numbers were measured with.
        requires: those with which alone the bounds are claimed.
        how: "published" or "measured", for sentences.
    """

    case: str
    group: str
    run: str
    spec: RunSpec
    wanted: tuple[Wanted, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    how: str = "published"


def entries(group: Group, cases: Sequence[Case], runs: Sequence[Run]) -> list[Entry]:
    """The simulations of published cases."""
    return [
        Entry(
            case=case.id,
            group=group.id,
            run=run.name,
            spec=group.spec_of(case, run),
            wanted=_wanted(group, case, run),
            versions=group.versions,
            requires=group.requires,
        )
        for case in cases
        for run in runs
    ]


def _wanted(group: Group, case: Case, run: Run) -> tuple[Wanted, ...]:
    found = [(measure, published(case, measure)) for measure in run.measures]
    return tuple(
        Wanted(
            metric=measure.metric,
            measured=number,
            bound=measure.bound,
            resolution=measure.resolution,
            constant=measure.constant,
            explanation=group.explanation(case.id, measure.metric),
            fitted=case.id in measure.fitted,
        )
        for measure, number in found
        if number is not None
    )


def with_bound(entry: Entry, bound: float) -> Entry:
    """The entry with another bound wherever one above zero is claimed for it."""
    wanted = tuple(replace(one, bound=bound) if one.bound else one for one in entry.wanted)
    return replace(entry, wanted=wanted)


def figures(entry: Entry, record: Record | None) -> list[Figure]:
    """An entry's numbers beside what its record predicts; without a record nothing does."""
    return [_figure(entry, wanted, record) for wanted in entry.wanted]


def _figure(entry: Entry, wanted: Wanted, record: Record | None) -> Figure:
    kind = metric(wanted.metric)
    found = kind.read(record) if record is not None else None
    predicted = None if found is None else found + wanted.constant
    error = relative_error(predicted, wanted.measured)
    versions = differing(entry, record, entry.requires) if record is not None else ""
    verdict = judge(wanted, predicted, unmet=_unmet(entry, record))
    explanation = {
        "explained": wanted.explanation,
        "other versions": versions,
        "no result": (record.error or record.status) if record is not None else "not run",
    }.get(verdict, "")
    return Figure(
        case=entry.case,
        group=entry.group,
        run=entry.run,
        metric=wanted.metric,
        kind=kind.kind,
        measured=wanted.measured,
        predicted=predicted,
        constant=wanted.constant,
        error=error,
        bound=wanted.bound,
        verdict=verdict,
        explanation=explanation,
        fitted=wanted.fitted,
        cell=record.id if record is not None else "",
    )


def relative_error(predicted: float | None, measured: float) -> float | None:
    """Predicted less measured as a share of the measured.

    >>> relative_error(101, 100), relative_error(0, 0), relative_error(None, 1)
    (0.01, 0.0, None)
    """
    if predicted is None or (predicted and not measured):
        return None
    return (predicted - measured) / measured if measured else 0.0


def judge(wanted: Wanted, predicted: float | None, *, unmet: bool = False) -> Verdict:
    """How good a prediction is.

    Args:
        unmet: Whether the libraries are others than the bound is claimed for.
    """
    if predicted is None:
        return "no result"
    if wanted.bound is None:
        return "no claim"
    off = abs(predicted - wanted.measured)
    # A number that is given in whole units may lie half a unit from the truth.
    if off <= wanted.bound * abs(wanted.measured) + wanted.resolution / 2:
        return "within"
    if unmet:
        return "other versions"
    return "explained" if wanted.explanation else "unexplained"


def differing(entry: Entry, record: Record, names: Iterable[str] | None = None) -> str:
    """In which versions of the libraries the measured run and ours differ, as a sentence.

    Args:
        names: of the libraries to look at; all that are known by default.
    """
    pairs = [
        (name, entry.versions[name], str(record.environment.get(name)))
        for name in (entry.versions if names is None else names)
        if _public(str(record.environment.get(name))) != _public(entry.versions[name])
    ]
    theirs = listing([f"{name} {version}" for name, version, _ in pairs])
    ours = listing([here for _, _, here in pairs])
    return f"{entry.how} with {theirs}, here {ours}" if pairs else ""


def _unmet(entry: Entry, record: Record | None) -> bool:
    return record is not None and any(
        _public(str(record.environment.get(name))) != version
        for name, version in entry.requires.items()
    )


def _public(version: str) -> str:
    """A version without its build: 2.13.0+cpu and 2.13.0+cu130 are one release."""
    return version.partition("+")[0]


def group_info(group: Group, runs: Sequence[Run]) -> GroupInfo:
    """What the result keeps of a group."""
    return GroupInfo(
        id=group.id,
        title=group.title,
        source=group.source,
        card=group.card,
        versions=group.versions,
        requires=group.requires,
        notes=group.notes,
        runs=[
            RunInfo(
                name=run.name,
                about=run.about,
                scan=run.scan,
                value=run.spec.get(run.scan.field) if run.scan else None,
                constants=[
                    Constant(metric=one.metric, value=one.constant, reason=one.constant_reason)
                    for one in run.measures
                    if one.constant
                ],
            )
            for run in runs
        ],
    )
