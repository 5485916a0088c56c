"""Cells against their baseline in words: one sentence each, computed from the two records.

A cause is named only as far as the records show it: the category, then the module or op whose part
changed most in the same direction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from profiler.analysis.difference import phase_of_peak, within_spread
from profiler.report import causes, units
from profiler.report.baseline import Against, options, otherwise
from profiler.report.cells import Cell, categories_of
from profiler.report.palette import category_label
from profiler.report.text import listing, shorten

#: Differences below this share of the baseline's are not put into words one by one.
NOTABLE = 0.001
#: Categories that a sentence names; what is left is counted.
CATEGORIES = 4
#: A longer name is shortened in the middle.
NAME = 60
#: Sentences of a page; the tables hold every cell.
SENTENCES = 40


@dataclass(frozen=True, slots=True)
class Remarks:
    """What is said of one baseline's cells: who saves and costs most, then each by its name."""

    heading: str
    source: str
    lead: str
    sentences: list[tuple[str, str]]


def remarks(comparisons: Sequence[Against]) -> tuple[list[Remarks], int]:
    """Sentences by baseline, and how many cells have none for want of room."""
    result: list[Remarks] = []
    left = SENTENCES
    for found in comparisons:
        said = [
            (shorten(found.name(cell), NAME), _unbroken(sentence(cell, found)))
            for cell in found.others[:left]
        ]
        left -= len(said)
        if said:
            base = found.base
            heading = f"{base.model} on {base.device}, {base.workload}, against {base.short}"
            result.append(Remarks(heading, base.source, _unbroken(lead(found)), said))
    total = sum(len(found.others) for found in comparisons)
    return result, total - (SENTENCES - left)


def lead(found: Against) -> str:
    """Who holds least and most, and who is fastest and slowest, of the cells and the baseline."""
    cells = [found.base, *found.others]
    text = "At the peak " + _extremes(
        found,
        {cell.key: cell.memory.peak_allocated or 0 for cell in cells},
        ("holds the least", "the most"),
        lambda change: f"{units.signed(change, units.binary(int(change)))}",
    )
    times = [cell.record.time for cell in cells]
    if all(times):
        text += " The step of " + _extremes(
            found,
            {cell.key: time.step for cell, time in zip(cells, times, strict=True) if time},
            (f"is the shortest, {times[0].source if times[0] else ''}", "the longest"),
            lambda change: units.signed(change, causes.duration(change)),
            {cell.key for cell in found.others if _alike(cell, found.base)},
        )
    return text


def _extremes(
    found: Against,
    values: Mapping[str, float],
    words: tuple[str, str],
    size: Callable[[float], str],
    alike: Set[str] = frozenset(),
) -> str:
    """The cells with the least and the most, and how far from the baseline they are.

    Args:
        alike: keys of the cells that differ no more than the steps of one run do.
    """
    cells = [found.base, *found.others]
    parts = []
    for choose, word in zip((min, max), words, strict=True):
        cell = choose(cells, key=lambda cell: values[cell.key])
        change = values[cell.key] - values[found.base.key]
        apart = size(change) if change else "as the baseline"
        if cell.key in alike:
            apart = "within the spread of the steps"
        elif cell is found.base:
            apart = "the baseline"
        parts.append(f"{shorten(found.name(cell), NAME)} {word} ({apart})")
    return f"{parts[0]}, {parts[1]}."


def _unbroken(text: str) -> str:
    """`text` without a line's end between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|[GM]iB|m?s\b)", "\N{NO-BREAK SPACE}", text)


def sentence(cell: Cell, found: Against) -> str:
    """Where a cell saves or costs against its baseline: memory, parameters, FLOPs and time.

    Its name stands before it.
    """
    base = found.base
    settings = [
        *(
            f"{name} {ours} instead of {theirs}"
            for name, (ours, theirs) in otherwise(cell, base).items()
        ),
        *(f"{name} {value}" for name, value in options(cell, base).items()),
    ]
    rest = [
        clause for clause in (_trained(cell, base), _flops(cell, base), _time(cell, base)) if clause
    ]
    name = shorten(found.name(base), NAME)
    return (
        f"{f'({listing(settings)}) ' if settings else ''}{_memory(cell, base, name)}"
        f"{'; it ' + listing(rest) if rest else ''}."
    )


def _memory(cell: Cell, base: Cell, name_of_base: str) -> str:
    ours, theirs = cell.memory, base.memory
    assert ours.peak_allocated is not None
    assert theirs.peak_allocated is not None
    least = NOTABLE * theirs.peak_allocated
    changes = {
        name: ours.at_peak.get(name, 0) - theirs.at_peak.get(name, 0)
        for name in categories_of([cell, base])
    }
    notable = sorted(
        (name for name, change in changes.items() if abs(change) >= least),
        key=lambda name: -abs(changes[name]),
    )
    total = ours.peak_allocated - theirs.peak_allocated
    if not total and not any(changes.values()):
        return f"holds as much at the peak as {name_of_base}, byte for byte"
    if not notable:
        size = f"{units.binary(total)} {_more(total)}" if total else "the same in all"
        return f"holds as much at the peak as {name_of_base}, but for {size}"
    share = units.fine_percent(total / theirs.peak_allocated)
    text = f"holds {units.binary(total)} {_more(total)} at the peak than {name_of_base} ({share})"
    if not total:
        text = f"holds as much at the peak as {name_of_base}, of other kinds"
    parts = []
    for place, name in enumerate(notable[:CATEGORIES]):
        change = changes[name]
        cause = "" if place else causes.modules(cell, base, name, change)
        parts.append(
            f"{units.binary(change)} {_more(change)} in {category_label(name)}"
            f"{f' ({cause})' if cause else ''}"
        )
    further = len(notable) - CATEGORIES
    if further > 0:
        parts.append(f"{further} smaller difference{'s' if further > 1 else ''}")
    return f"{text}: {listing(parts)}{_moment(cell, base, name_of_base)}"


def _moment(cell: Cell, base: Cell, name_of_base: str) -> str:
    """That the two peaks are reached in different phases, if they are."""
    ours, theirs = phase_of_peak(cell.memory), phase_of_peak(base.memory)
    if not ours or not theirs or ours == theirs:
        return ""
    return f" (its peak is in the {ours}, that of {name_of_base} in the {theirs})"


def _trained(cell: Cell, base: Cell) -> str:
    ours, theirs = cell.record.params, base.record.params
    if ours is None or theirs is None:
        return ""
    return f"trains {_as_many(ours.trainable, theirs.trainable, 'parameters')}"


def _flops(cell: Cell, base: Cell) -> str:
    ours, theirs = cell.record.flops, base.record.flops
    if ours is None or theirs is None:
        return ""
    return f"needs {_as_many(ours.total, theirs.total, 'FLOPs')}"


def _as_many(ours: int, theirs: int, what: str) -> str:
    if ours == theirs:
        return f"as many {what}"
    if not theirs:
        return f"{units.count(ours)} {what}"
    if ours < theirs / 10:
        return f"{units.percent(ours, theirs)} as many {what}"
    if ours >= 2 * theirs:
        return f"{units.scaled(ours / theirs, 1)} times as many {what}"
    share = units.fine_percent(ours / theirs - 1).lstrip("+" + units.MINUS)
    return f"{share} {'more' if ours > theirs else 'fewer'} {what}"


def _time(cell: Cell, base: Cell) -> str:
    """The step's time; between measured ones only a difference beyond both runs' own spread."""
    ours, theirs = cell.record.time, base.record.time
    if ours is None or theirs is None or ours.source != theirs.source:
        return ""
    change = ours.step - theirs.step
    if not change or _alike(cell, base):
        within = ", within the spread of the steps" if change else ""
        return f"takes as long ({ours.source}{within})"
    share = units.fine_percent(change / theirs.step).lstrip("+" + units.MINUS)
    text = f"takes {share} {'longer' if change > 0 else 'less time'}"
    cause = causes.ops(cell, base, change)
    return f"{text} ({', '.join([ours.source, *([cause] if cause else [])])})"


def _alike(cell: Cell, base: Cell) -> bool:
    return within_spread(cell.record.time, base.record.time)


def _more(change: int) -> str:
    return "more" if change > 0 else "less"
