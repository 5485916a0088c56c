"""The page's answer in a few sentences, computed from the cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.report.cells import Cell, distinct, grouped
from profiler.report.palette import category_label
from profiler.report.text import listing, shorten
from profiler.report.units import gib, gib_unit

#: More models than this are not each given a sentence.
MODELS = 3
#: More names than this are counted, not listed.
NAMES = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """What the cells of one source say."""

    source: str
    sentences: tuple[str, ...]


def answers(cells: Sequence[Cell]) -> list[Answer]:
    """One answer per source, so that simulated and measured are never mixed."""
    return [
        Answer(source, tuple(sentences(group)))
        for source, group in grouped(cells, lambda cell: cell.source).items()
    ]


def sentences(cells: Sequence[Cell]) -> list[str]:
    """Which method needs least and most, which fit on which card, what fills the memory."""
    with_peak = [cell for cell in cells if cell.peak is not None]
    if not with_peak:
        return [f"None of the {len(cells)} cells has a result; the reasons are listed below."]
    models = grouped(with_peak, lambda cell: cell.model)
    # What a study is about has most cells.
    ordered = sorted(models.items(), key=lambda item: -len(item[1]))
    result = [
        _extremes(model, alike)
        for model, group in ordered[:MODELS]
        for alike in grouped(group, _reserves).values()
    ]
    if len(models) > MODELS:
        result.append(f"{len(models) - MODELS} more models are in the tables.")
    result += [sentence for sentence in (_fits(cells), _fillers(with_peak)) if sentence]
    missing = len(cells) - len(with_peak)
    if missing:
        result.append(f"{missing} of {len(cells)} cells have no result, for the reasons below.")
    return result


def _extremes(model: str, cells: Sequence[Cell]) -> str:
    workloads = distinct(cell.workload for cell in cells)
    at = f" at {workloads[0]}" if len(workloads) == 1 else ""
    kind = "reserved" if _reserves(cells[0]) else "allocated"
    if not _reserves(cells[0]):
        at += f" on {listing(distinct(cell.device for cell in cells))}"
    names = grouped(cells, lambda cell: cell.name)
    if len(names) == 1:
        name = shorten(cells[0].short, 60)
        return f"{name} on {model}{at} needs {_range(cells)}, {kind} at the peak."
    least = min(names.values(), key=_largest)
    most = max(names.values(), key=_largest)
    return (
        f"On {model}{at}, {shorten(least[0].short, 60)} needs the least memory, {_range(least)} "
        f"{kind} at the peak, and {shorten(most[0].short, 60)} the most, {_range(most)}: "
        f"{_largest(most) / max(1, _largest(least)):.1f} times as much."
    )


def _reserves(cell: Cell) -> bool:
    """Whether the need is what an allocator reserved: a card's and a CPU's are not compared."""
    return cell.memory.peak_reserved is not None


def _largest(cells: Sequence[Cell]) -> int:
    return max(cell.peak or 0 for cell in cells)


def _range(cells: Sequence[Cell]) -> str:
    """The peak, or its span over the devices where they differ as written."""
    peaks = [cell.peak for cell in cells if cell.peak is not None]
    low, high = gib(min(peaks), 1), gib(max(peaks), 1)
    return gib_unit(max(peaks)) if low == high else f"{low} to {high} GiB"


def _fits(cells: Sequence[Cell]) -> str:
    judged = [cell for cell in cells if cell.fits is not None]
    several = len(distinct(cell.model for cell in judged)) > 1
    parts = []
    for device, group in grouped(judged, lambda cell: cell.device).items():
        fits = group[0].record.fits
        assert fits is not None
        card = f"{device} ({gib_unit(fits.capacity)})"
        misfits = [_qualified(cell, several) for cell in group if not cell.fits]
        if not misfits:
            parts.append(f"{card} holds {f'all {len(group)}' if len(group) > 1 else 'it'}")
        elif len(misfits) == len(group):
            parts.append(f"{card} holds none of {len(group)}")
        else:
            but = f", all but {listing(misfits)}" if len(misfits) <= NAMES else ""
            parts.append(f"{card} holds {len(group) - len(misfits)} of {len(group)}{but}")
    return f"What fits: {'; '.join(parts)}." if parts else ""


def _qualified(cell: Cell, several: bool) -> str:
    """The cell's name, with its model if there are several."""
    name = shorten(cell.short, 40)
    return f"{name} on {cell.model}" if several else name


def _fillers(cells: Sequence[Cell]) -> str:
    """Which category holds most at the peak, counted over the cells."""
    shares: dict[str, list[float]] = {}
    owners: dict[str, list[str]] = {}
    names: Counter[str] = Counter()
    several = len(distinct(cell.model for cell in cells)) > 1
    for cell in cells:
        if not cell.drawable or not cell.memory.peak_allocated:
            continue
        category = max(cell.memory.at_peak, key=lambda name: cell.memory.at_peak[name])
        share = cell.memory.at_peak[category] / cell.memory.peak_allocated
        shares.setdefault(category, []).append(share)
        owners.setdefault(category, []).append(_qualified(cell, several))
        names[category] += 1
    if not names:
        return ""
    total = sum(names.values())
    (first, often), *others = names.most_common()
    span = _span(shares[first])
    subject = "in every cell" if often == total else f"in {often} of {total} cells"
    text = f"What fills it: {category_label(first)} hold the most {subject}, {span} of the peak"
    for category, _ in others[:2]:
        whose = distinct(owners[category])
        where = listing(whose) if len(whose) <= NAMES else f"{len(whose)} others"
        text += f"; for {where} it is {category_label(category)} ({_span(shares[category])})"
    return text + "."


def _span(shares: Sequence[float]) -> str:
    low, high = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
