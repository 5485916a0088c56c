"""How good the predictions are, group by group and metric by metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.validation.result import WRONG, Figure

#: Rank correlation says something from so many cases on.
RANKED = 4


@dataclass(frozen=True, slots=True)
class Summary:
    """The errors of one metric in one group.

    Attributes:
        cases: how many have a prediction; `wrong`: how many are off and unexplained, or without.
        median: of the errors' sizes; `median_signed`: of the errors.
        worst, worst_case: the error that is largest in size, and whose it is.
        within: how many are within their bound; None where none is claimed.
        rank_correlation: Spearman's, of predicted and measured; None for too few cases.
    """

    group: str
    metric: str
    cases: int
    median: float | None
    median_signed: float | None
    worst: float | None
    worst_case: str
    bound: float | None
    within: int | None
    wrong: int
    rank_correlation: float | None


def summarise(figures: Sequence[Figure]) -> list[Summary]:
    """One summary for each group and metric, in the figures' order."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.group, figure.metric), []).append(figure)
    return [_summary(same) for same in groups.values()]


def _summary(figures: Sequence[Figure]) -> Summary:
    import pandas as pd

    first = figures[0]
    frame = pd.DataFrame(
        [
            {"case": one.case, "error": one.error, "p": one.predicted, "m": one.measured}
            for one in figures
            if one.error is not None
        ],
        columns=["case", "error", "p", "m"],
    )
    size = frame["error"].astype(float).abs()
    worst = frame.loc[size.idxmax()] if len(frame) else None
    ranks = None
    if len(frame) >= RANKED:
        ranks = float(frame[["p", "m"]].astype(float).corr(method="spearman").loc["p", "m"])
    return Summary(
        group=first.group,
        metric=first.metric,
        cases=len(frame),
        median=float(size.median()) if len(frame) else None,
        median_signed=float(frame["error"].astype(float).median()) if len(frame) else None,
        worst=float(worst["error"]) if worst is not None else None,
        worst_case=str(worst["case"]) if worst is not None and worst["error"] else "",
        bound=first.bound,
        within=None if first.bound is None else sum(one.verdict == "within" for one in figures),
        wrong=sum(one.verdict in WRONG for one in figures),
        rank_correlation=None if ranks is None or ranks != ranks else ranks,
    )
