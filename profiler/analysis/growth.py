"""Whether a cell grew by more than is allowed: what a build fails on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from profiler.analysis.difference import FIGURES, Difference
from profiler.errors import UsageError
from profiler.record import Record

_UNITS = {
    "": 1,
    "b": 1,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}

#: From the best to the worst; between statuses of one rank nothing got worse.
_RANKS = {"ok": 0, "oom": 1, "unsupported": 2}

#: What is held to the limit unless others are named.
METRICS = ("peak_allocated", "peak_reserved", "after_step_allocated")


@dataclass(frozen=True, slots=True)
class Limit:
    """How much more is allowed: a share of what was, or an amount."""

    text: str
    share: Fraction | None = None
    amount: int | None = None

    @classmethod
    def parse(cls, text: str) -> Limit:
        """
        >>> Limit.parse("0.5%").share, Limit.parse("64MiB").amount
        (Fraction(1, 200), 67108864)

        Raises:
            UsageError: `text` is neither a share nor a size.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|[kmg]?i?b)?", text.strip().lower(), re.ASCII)
        unit = (match[2] or "") if match else ""
        if match is None or unit not in (*_UNITS, "%"):
            raise UsageError(
                f"--fail-over takes a share (0.5%) or a size (64MiB, 1048576), not {text!r}"
            )
        number = Fraction(Decimal(match[1]))
        if unit == "%":
            return cls(text, share=number / 100)
        return cls(text, amount=int(number * _UNITS[unit]))

    def exceeded(self, before: int | float, after: int | float) -> bool:
        """Whether `after` is more than `before` by more than the limit; exactly, not rounded."""
        grown = Fraction(after) - Fraction(before)
        if self.share is not None:
            return grown > self.share * Fraction(before)
        assert self.amount is not None
        return grown > self.amount


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell fails: a figure that grew (both its values), or what else got worse."""

    cell: str
    reason: str
    metric: str = ""
    before: int | float | None = None
    after: int | float | None = None


def check_metrics(limit: Limit, metrics: Sequence[str]) -> None:
    """
    Raises:
        UsageError: the limit is a size and a metric is not in bytes.
    """
    if limit.amount:
        for name in metrics:
            if FIGURES[name][0] != "bytes":
                raise UsageError(
                    f"--fail-over {limit.text} is a size and {name} is in {FIGURES[name][0]}; "
                    "give a share (0.5%)"
                )


def failures(
    differences: Sequence[Difference],
    gone: Sequence[Record],
    limit: Limit,
    metrics: Sequence[str] = METRICS,
) -> list[Failure]:
    """What fails: a figure of `metrics` that grew by more than the limit, or that is gone; a cell
    that is gone, ends worse, or cannot be judged as one record is measured and the other not.

    A figure that the first record does not have cannot have grown.
    """
    result = [
        Failure(record.id, "has no counterpart any more") for record in gone if record.answered
    ]
    for found in differences:
        before, after = found.before, found.after
        cell = after.id
        if _RANKS.get(after.status, 3) > _RANKS.get(before.status, 3):
            result.append(Failure(cell, f"was {before.status} and is {after.status}"))
        if found.mixed:
            result.append(
                Failure(cell, f"was {before.source} and is {after.source}: not held to the limit")
            )
            continue
        for name in metrics:
            change = found.figures.get(name)
            if change is None or change.before is None:
                continue
            if change.after is None:
                if after.status in ("ok", "oom"):
                    result.append(Failure(cell, f"has no {name} any more", name, change.before))
            elif limit.exceeded(change.before, change.after):
                result.append(Failure(cell, f"{name} grew", name, change.before, change.after))
    return result
