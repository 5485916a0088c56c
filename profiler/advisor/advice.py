"""What one method needs on a card: the largest batch or length, and the change that makes it fit.

Every answer is the simulation of whole cells, as `profiler.sweep` runs them: the number that is
returned was simulated and fits, and so was the next one, which does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from profiler.advisor.search import Largest, Trial, largest
from profiler.analysis import again
from profiler.errors import UsageError
from profiler.record import Record
from profiler.spec import RunSpec

#: Lengths are searched in steps of as many tokens.
LENGTH_STEP = 64

#: What can be changed so that a method fits, from the least to the most that it changes: the same
#: numbers for more time, then other numbers.
LEVERS: Mapping[str, dict[str, Any]] = {
    "checkpointing": {"checkpointing": "non-reentrant"},
    "nf4-dq weights": {"quantization": "nf4-dq"},
    "nf4-dq weights and checkpointing": {
        "quantization": "nf4-dq",
        "checkpointing": "non-reentrant",
    },
}

Find = Literal["batch", "length"]


class Advice(BaseModel):
    """What came of one method.

    Attributes:
        method: as it was typed.
        status: "fits", "too large" (whatever is changed), or the record's status for a method that
            gives no answer ("unsupported", "failed").
        change: what had to be changed so that it fits, "" for nothing.
        batch_size, seq_len: the largest that fit, or what does not.
        capped: larger ones may fit too; the limit of the search was reached.
        needed, capacity: bytes of the device at that batch and length.
        beyond: what the next batch or length needs, in bytes.
        holder: the category that holds most of the peak, with its bytes.
        step, tokens_per_second: predicted for the card.
        spec: the fields of the run, as `profiler.sweep` takes them.
    """

    model_config = ConfigDict(frozen=True)

    method: str
    status: str
    reason: str = ""
    change: str = ""
    batch_size: int
    seq_len: int
    capped: bool = False
    needed: int | None = None
    capacity: int | None = None
    beyond: int | None = None
    holder: tuple[str, int] | None = None
    trainable: int | None = None
    step: float | None = None
    tokens_per_second: float | None = None
    spec: dict[str, Any]
    trials: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one method: the largest `find` from `spec` on, up to `limit` (a batch size,
    or a length in tokens). A cell's batch size, or length, is the spec's where it is not searched.
    """

    spec: RunSpec
    find: Find
    limit: int

    def at(self, number: int, changes: Mapping[str, Any]) -> RunSpec:
        """The cell of a number of the search."""
        if self.find == "batch":
            return self.spec.replace(batch_size=number, **changes)
        return self.spec.replace(seq_len=number * LENGTH_STEP, **changes)

    @property
    def numbers(self) -> int:
        return self.limit if self.find == "batch" else max(1, self.limit // LENGTH_STEP)


Run = Callable[[RunSpec], Record]


class _NoAnswerError(Exception):
    """A cell whose record is no answer; it is the argument."""


def advise(question: Question, run: Run) -> tuple[Advice, list[Record]]:
    """The answer for one method, and the records that it rests on.

    Args:
        run: `profiler.execute.run`, or another way to a spec's record.
    """
    records: dict[RunSpec, Record] = {}

    def tried(spec: RunSpec) -> Record:
        if spec not in records:
            record = records[spec] = run(spec)
            if record.status not in ("ok", "oom"):
                raise _NoAnswerError(record)
        return records[spec]

    count = 0
    for change, changes in {"": {}, **_levers(question.spec)}.items():
        try:
            if change and not _is_same_method(question, changes, tried):
                continue
            found = _search(question, changes, tried)
        except (UsageError, _NoAnswerError) as error:
            if change:
                continue  # this lever is none for this method
            if isinstance(error, UsageError):
                raise
            (record,) = error.args
            return _without(question, record), list(records.values())
        count = len(records)
        if found.number:
            return _found(question, change, changes, found, tried, count), list(records.values())
    smallest = tried(question.at(1, {}))
    return _too_large(question, smallest, count), list(records.values())


def _levers(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """The levers that the question leaves free, and that change something."""
    return {
        name: changes
        for name, changes in LEVERS.items()
        if all(getattr(spec, field) is None for field in changes)
    }


def _is_same_method(
    question: Question, changes: Mapping[str, Any], tried: Callable[[RunSpec], Record]
) -> bool:
    """Whether as much is trained as without the lever: packed weights are frozen, and full
    fine-tuning of what is left is none."""
    first, other = tried(question.at(1, {})), tried(question.at(1, changes))
    if first.params is None or other.params is None:
        return True
    return first.params.trainable == other.params.trainable


def _search(
    question: Question, changes: Mapping[str, Any], tried: Callable[[RunSpec], Record]
) -> Largest:
    capacity = 0

    def trial(number: int) -> Trial:
        record = tried(question.at(number, changes))
        assert record.memory.device_total is not None
        return Trial(record.status == "ok", record.memory.device_total)

    device = again.simulated_device(question.spec.to_dict())
    assert device is not None
    capacity = device.memory_bytes
    return largest(trial, capacity, limit=question.numbers)


def _found(
    question: Question,
    change: str,
    changes: Mapping[str, Any],
    found: Largest,
    tried: Callable[[RunSpec], Record],
    count: int,
) -> Advice:
    spec = question.at(found.number, changes)
    record = tried(spec)
    assert record.fits is not None
    next_one = found.trials.get(found.number + 1)
    return Advice(
        method=spec.method,
        status="fits",
        change=change,
        batch_size=spec.batch_size,
        seq_len=spec.seq_len,
        capped=found.capped,
        needed=record.memory.device_total,
        capacity=record.fits.capacity,
        beyond=None if next_one is None else next_one.needed,
        holder=_holder(record),
        trainable=record.params.trainable if record.params else None,
        step=record.time.step if record.time else None,
        tokens_per_second=record.time.tokens_per_second if record.time else None,
        spec=spec.to_dict(),
        trials=count,
    )


def _too_large(question: Question, record: Record, count: int) -> Advice:
    spec = question.at(1, {})
    return Advice(
        method=spec.method,
        status="too large",
        reason=record.error or "",
        batch_size=spec.batch_size,
        seq_len=spec.seq_len,
        needed=record.memory.device_total,
        capacity=record.fits.capacity if record.fits else None,
        holder=_holder(record),
        trainable=record.params.trainable if record.params else None,
        spec=spec.to_dict(),
        trials=count,
    )


def _without(question: Question, record: Record) -> Advice:
    spec = question.at(1, {})
    return Advice(
        method=spec.method,
        status=record.status,
        reason=record.error or "",
        batch_size=spec.batch_size,
        seq_len=spec.seq_len,
        spec=spec.to_dict(),
        trials=1,
    )


def _holder(record: Record) -> tuple[str, int] | None:
    parts = record.memory.at_peak
    return max(parts.items(), key=lambda part: part[1]) if parts else None


def ranked(advice: list[Advice]) -> list[Advice]:
    """What fits unchanged first, then what fits changed, the fastest first; then what does not."""

    def rank(one: Advice) -> tuple[bool, bool, float, str]:
        fits = one.status == "fits"
        return (not fits, bool(one.change), -(one.tokens_per_second or 0.0), one.method)

    return sorted(advice, key=rank)
