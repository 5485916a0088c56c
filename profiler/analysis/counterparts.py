"""Which record of one set stands for the same cell as which of another."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from profiler.record import Record


@dataclass(frozen=True, slots=True)
class Counterparts:
    """Pairs of records, and those of either set that have none."""

    pairs: list[tuple[Record, Record]]
    before: list[Record]
    after: list[Record]


def counterparts(before: Sequence[Record], after: Sequence[Record]) -> Counterparts:
    """Pair two sets of records, in the first one's order; an id stands at most once in each.

    Two single records are a pair, whatever they are. Of sets, first those with one id. Then what
    agrees in all fields but those that one set has otherwise throughout (a study run again with
    `--kbit-prepare none`). Then of one model, method and source those that differ in the fewest
    fields. What could go with several is left alone.
    """
    if len(before) == len(after) == 1:
        return Counterparts([(before[0], after[0])], [], [])
    left = [list(before), list(after)]
    found: dict[int, Record] = {}

    def take(pairs: Sequence[tuple[Record, Record]]) -> None:
        for one, other in pairs:
            found[id(one)] = other
        taken = [{id(pair[side]) for pair in pairs} for side in (0, 1)]
        for side in (0, 1):
            left[side] = [record for record in left[side] if id(record) not in taken[side]]

    take(_unique(left[0], left[1], lambda record: record.id))
    apart = _set_otherwise(before, after)
    take(
        _unique(
            left[0],
            left[1],
            lambda record: tuple(
                item for item in sorted(fields(record).items()) if item[0] not in apart
            ),
        )
    )
    take(_nearest(left[0], left[1]))
    pairs = [(record, found[id(record)]) for record in before if id(record) in found]
    return Counterparts(pairs, left[0], left[1])


def fields(record: Record) -> dict[str, str]:
    """What a cell is told by: the spec's fields and where its figures come from, as text."""
    result = {
        name: json.dumps(value, sort_keys=True, default=str)
        for name, value in record.spec.items()
        if name not in ("method", "model_config")
    }
    return {**result, "method": record.label, "source": record.source}


def _unique(
    before: Sequence[Record], after: Sequence[Record], key: Callable[[Record], Hashable]
) -> list[tuple[Record, Record]]:
    """Pairs of one key that no other record of either set has."""
    sides: list[Mapping[Hashable, list[Record]]] = []
    for records in (before, after):
        keyed: dict[Hashable, list[Record]] = defaultdict(list)
        for record in records:
            keyed[key(record)].append(record)
        sides.append(keyed)
    return [
        (same[0], sides[1][name][0])
        for name, same in sides[0].items()
        if len(same) == 1 and len(sides[1].get(name, ())) == 1
    ]


def _set_otherwise(before: Sequence[Record], after: Sequence[Record]) -> set[str]:
    """Fields that have one value throughout each set, and not the same one."""
    values = [[fields(record) for record in records] for records in (before, after)]
    names = {name for side in values for one in side for name in one}
    held = {name: [{one.get(name) for one in side} for side in values] for name in names}
    return {
        name
        for name, (first, second) in held.items()
        if len(first) == len(second) == 1 and first != second
    }


def _nearest(before: Sequence[Record], after: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Pairs in which each is the other's nearest of its model, method and source."""
    values = {id(record): fields(record) for record in (*before, *after)}

    def nearest(record: Record, others: Sequence[Record]) -> Record | None:
        ours = values[id(record)]
        apart: dict[int, list[Record]] = defaultdict(list)
        for other in others:
            theirs = values[id(other)]
            if all(ours.get(name) == theirs.get(name) for name in ("model", "method", "source")):
                differing = sum(ours.get(name) != theirs.get(name) for name in {**ours, **theirs})
                apart[differing].append(other)
        best = apart[min(apart)] if apart else []
        return best[0] if len(best) == 1 else None

    result = []
    for record in before:
        other = nearest(record, after)
        if other is not None and nearest(other, before) is record:
            result.append((record, other))
    return result
