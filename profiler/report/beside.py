"""The section "Measured beside simulated": tables of pairs, and what was only measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiler.report import units
from profiler.report.cells import Cell, categories_of, distinct, grouped
from profiler.report.figures import phases_of
from profiler.report.pairs import TOLERANCE, Difference, Pair, Verdict
from profiler.report.palette import category_label
from profiler.report.tables import MOMENTS, Column, Field, Rows, Table, memory_field, name_field
from profiler.report.text import listing

#: The sign that stands for a verdict beside its colour, and the tone of its field.
SIGNS: dict[Verdict, tuple[str, str]] = {
    "equal": ("=", "good"),
    "within": ("✓", "good"),
    "apart": ("▲", "bad"),
    "unknown": (units.NONE, ""),
}
#: What a process holds, as label and unit, in the order of the columns; further keys follow.
_RESIDENT = {
    "rss_before": ("before the model", "GiB"),
    "rss_loaded": ("model loaded", "GiB"),
    "rss_last": ("last seen", "GiB"),
    "rss_peak": ("peak", "GiB"),
    "rss_explained": ("explained", "before + tensors, GiB"),
}
#: Names that are listed; more are counted.
NAMES = 8
#: Losses that are written out.
LOSSES = 8


@dataclass(frozen=True, slots=True)
class Details:
    """One pair, number by number."""

    name: str
    where: str
    agreement: str
    tone: str
    table: Table


def summary(pairs: Sequence[Pair], cells: Sequence[Cell]) -> list[str]:
    """How the pairs agree, in sentences; and which measured cells have no counterpart."""
    known = [pair for pair in pairs if pair.peak.nbytes is not None]
    result = []
    if known:
        counts = {
            verdict: sum(pair.peak.verdict == verdict for pair in known)
            for verdict in ("equal", "within", "apart")
        }
        parts = [
            f"{counts['equal']} equal to the byte" if counts["equal"] else "",
            f"{counts['within']} within {100 * TOLERANCE:g} %" if counts["within"] else "",
            f"{counts['apart']} apart by more than that" if counts["apart"] else "",
        ]
        number = f"{len(known)} cell{'s' if len(known) > 1 else ''}"
        result.append(
            f"Peak allocated of {number}, measured and simulated: "
            f"{listing([part for part in parts if part])}."
        )
        worst = max(known, key=_distance)
        if worst.peak.nbytes:
            result.append(
                f"The largest difference is {units.difference(worst.peak.nbytes)} bytes"
                f"{_in_percent(worst.peak)}, of {worst.measured.short} on {worst.measured.model}."
            )
    paired = {pair.measured.key for pair in pairs}
    alone = distinct(
        f"{cell.short} ({cell.model})"
        for cell in cells
        if cell.source == "measured" and cell.key not in paired
    )
    if alone:
        shown = alone[:NAMES]
        more = [f"{len(alone) - len(shown)} more"] if len(alone) > len(shown) else []
        result.append(
            "Measured, with no simulation of the same run on the same machine: "
            f"{listing([*shown, *more])}."
        )
    return result


def overview(pairs: Sequence[Pair]) -> list[Table]:
    """One table per model: the peaks, and how far apart the two are in every phase."""
    return [_overview(group) for group in by_model(pairs).values()]


def _overview(pairs: Sequence[Pair]) -> Table:
    both = [cell for pair in pairs for cell in (pair.measured, pair.simulated)]
    phases = phases_of(both)

    def row(pair: Pair) -> list[Field]:
        one, other = pair.measured.memory, pair.simulated.memory
        return [
            name_field(pair.measured),
            _agreement(pair),
            memory_field(one.peak_allocated),
            memory_field(other.peak_allocated),
            _bytes_field(pair.peak),
            *(
                _bytes_field(Difference(one.phases.get(name), other.phases.get(name)))
                for name in phases
            ),
            _bytes_field(Difference(one.after_step_allocated, other.after_step_allocated)),
            _category_field(pair),
        ]

    groups = []
    for (where, workload), group in _groups(pairs).items():
        remarks = distinct(
            f"{pair.measured.short}: {', '.join(pair.differing)}"
            for pair in group
            if pair.differing
        )
        note = f"Other versions: {'; '.join(remarks)}." if remarks else ""
        groups.append(Rows(f"{where}, {workload}", [row(pair) for pair in group], note))
    return Table(
        caption=f"{pairs[0].measured.model}: peak allocated, measured beside simulated",
        columns=[
            Column("method", number=False),
            Column("agreement", number=False),
            Column("peak", "GiB", source="measured"),
            Column("peak", "GiB", source="simulated"),
            Column("difference", "bytes"),
            *(Column(f"in {name}", "bytes") for name in phases),
            Column("after the step", "bytes"),
            Column("furthest category", "bytes"),
        ],
        groups=groups,
    )


def details(pairs: Sequence[Pair]) -> list[Details]:
    """Every number of every pair."""
    models, machines = by_model(pairs), by_machine(pairs)
    result = []
    for pair in pairs:
        cell = pair.measured
        words = [
            "" if cell.workload in cell.short else cell.workload,
            cell.model if len(models) > 1 else "",
            machine(cell.device, pair.simulated.device) if len(machines) > 1 else "",
        ]
        words = [word for word in words if word]
        agreement = _agreement(pair)
        result.append(
            Details(cell.short, ", ".join(words), agreement.text, agreement.tone, _details(pair))
        )
    return result


def _details(pair: Pair) -> Table:
    one, other = pair.measured.memory, pair.simulated.memory
    moments = {
        "peak allocated": "peak_allocated",
        **MOMENTS,
        "peak reserved": "peak_reserved",
        "device total": "device_total",
    }
    cells = [pair.measured, pair.simulated]
    groups = [
        _rows(
            "The step",
            {
                label: Difference(getattr(one, name), getattr(other, name))
                for label, name in moments.items()
            },
        ),
        _rows(
            "Peak in each phase",
            {
                name: Difference(one.phases.get(name), other.phases.get(name))
                for name in phases_of(cells)
            },
        ),
        _rows(
            "At the peak, by category",
            {category_label(name): _of_category(pair, name) for name in categories_of(cells)},
        ),
    ]
    return Table(
        caption=(
            f"{pair.measured.name}, {pair.measured.model}, {pair.measured.workload}: "
            f"{machine(pair.measured.device, pair.simulated.device)}"
        ),
        columns=[
            Column("what", number=False),
            Column("bytes", source="measured"),
            Column("bytes", source="simulated"),
            Column("difference", "bytes"),
            Column("agreement", number=False),
        ],
        groups=[group for group in groups if group.rows],
    )


def _rows(heading: str, numbers: dict[str, Difference]) -> Rows:
    rows = []
    for label, number in numbers.items():
        if number.measured is None and number.simulated is None:
            continue
        rows.append(
            [
                Field(label),
                _exact_field(number.measured),
                _exact_field(number.simulated),
                _bytes_field(number),
                _agreement_of(number),
            ]
        )
    return Rows(heading, rows)


def processes(cells: Sequence[Cell]) -> list[Table]:
    """What the processes of the measured cells held, one table per model; their losses too."""
    measured = [cell for cell in cells if cell.source == "measured"]
    result = []
    for group in grouped(measured, lambda cell: cell.model).values():
        result += [table for table in (_processes(group), _losses(group)) if table]
    return result


def _processes(cells: Sequence[Cell]) -> Table | None:
    held = [cell for cell in cells if cell.memory.process]
    if not held:
        return None
    found = {name for cell in held for name in cell.memory.process or {}}
    names = [name for name in _RESIDENT if name in found] + sorted(found - set(_RESIDENT))
    explained = {"rss_peak", "rss_explained"} <= found
    counted = any(_allocator_peak(cell) is not None for cell in held)

    def row(cell: Cell) -> list[Field]:
        process, peak = cell.memory.process or {}, cell.memory.peak_allocated
        unexplained = Difference(process.get("rss_peak"), process.get("rss_explained"))
        allocator = _allocator_peak(cell)
        return [
            name_field(cell),
            Field(cell.workload),
            *(memory_field(process.get(name)) for name in names),
            *([_percent_field(unexplained)] if explained else []),
            memory_field(peak),
            *([memory_field(allocator)] if counted else []),
            *([_percent_field(Difference(allocator, peak))] if counted else []),
        ]

    labels = [_RESIDENT.get(name, (name.replace("_", " "), "GiB")) for name in names]
    return Table(
        caption=f"{cells[0].model}: resident memory of the process",
        columns=[
            Column("method", number=False),
            Column("batch × length", number=False),
            *(Column(label, unit) for label, unit in labels),
            *([Column("explained less peak", "%")] if explained else []),
            Column("tensors", "peak allocated, GiB"),
            *([Column("allocator’s own count", "peak, GiB")] if counted else []),
            *([Column("tensors less that", "%")] if counted else []),
        ],
        groups=_by_device(held, row),
        source="measured",
    )


def _allocator_peak(cell: Cell) -> int | None:
    """The peak by the allocator's own events, if the record holds it."""
    found = (cell.record.model_extra or {}).get("allocator_peak")
    return found if isinstance(found, int) else None


def _losses(cells: Sequence[Cell]) -> Table | None:
    found = [(cell, losses_of(cell)) for cell in cells]
    found = [(cell, losses) for cell, losses in found if losses]
    if not found:
        return None
    rows = []
    for cell, losses in found:
        finite = all(math.isfinite(loss) for loss in losses)
        shown = ", ".join(f"{loss:.6g}" for loss in losses[:LOSSES])
        rows.append(
            [
                name_field(cell),
                Field(f"{cell.device}, {cell.workload}"),
                Field(str(len(losses)), len(losses), "count"),
                Field(
                    "✓ all finite" if finite else "▲ not finite", tone="good" if finite else "bad"
                ),
                Field(
                    shown + (", …" if len(losses) > LOSSES else ""),
                    tip=", ".join(repr(loss) for loss in losses),
                    tone="long",
                ),
            ]
        )
    return Table(
        caption=f"{cells[0].model}: losses of the steps",
        columns=[
            Column("method", number=False),
            Column("device, batch × length", number=False),
            Column("losses"),
            Column("finite", number=False),
            Column("in the order of the steps", number=False),
        ],
        groups=[Rows("", rows)],
        source="measured",
    )


def losses_of(cell: Cell) -> list[float]:
    """The losses that a record holds, if it holds numbers there."""
    found = (cell.record.model_extra or {}).get("losses")
    if not isinstance(found, list):
        return []
    return [float(loss) for loss in found if isinstance(loss, int | float)]


def by_model(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Pairs by their measured cell's model, in the order they come."""
    result: dict[str, list[Pair]] = {}
    for pair in pairs:
        result.setdefault(pair.measured.model, []).append(pair)
    return result


def by_machine(pairs: Sequence[Pair]) -> dict[tuple[str, str], list[Pair]]:
    """Pairs by the devices of their two cells."""
    result: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        result.setdefault((pair.measured.device, pair.simulated.device), []).append(pair)
    return result


def _groups(pairs: Sequence[Pair]) -> dict[tuple[str, str], list[Pair]]:
    """Pairs by machine and workload."""
    result: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        where = machine(pair.measured.device, pair.simulated.device)
        result.setdefault((where, pair.measured.workload), []).append(pair)
    return result


def machine(device: str, named: str) -> str:
    """The two devices of a pair."""
    return f"measured on {device}, simulated as {named}"


def _by_device(cells: Sequence[Cell], row: Callable[[Cell], list[Field]]) -> list[Rows]:
    return [
        Rows(device, [row(cell) for cell in group])
        for device, group in grouped(cells, lambda cell: cell.device).items()
    ]


def _agreement(pair: Pair) -> Field:
    """How well the peaks agree, or which of the two is missing and why."""
    if pair.peak.verdict != "unknown":
        return _agreement_of(pair.peak)
    missing = [
        cell for cell in (pair.measured, pair.simulated) if cell.memory.peak_allocated is None
    ]
    return Field(
        ", ".join(f"{cell.source} {cell.record.status}" for cell in missing),
        tip="; ".join(cell.record.error or cell.record.status for cell in missing),
        tone="muted",
    )


def _agreement_of(number: Difference) -> Field:
    sign, tone = SIGNS[number.verdict]
    if number.verdict == "unknown":
        return Field(sign)
    if number.verdict == "equal":
        return Field(f"{sign} equal", tone=tone)
    if number.share is None:
        return Field(f"{sign} not 0", tone=tone)
    return Field(
        f"{sign} {units.fine_percent(number.share)}",
        tip=f"{100 * number.share:.6g} % of the measured",
        tone=tone,
    )


def _category_field(pair: Pair) -> Field:
    """The category at the peak in which the two differ most."""
    if not (pair.measured.drawable and pair.simulated.drawable):
        return Field(units.NONE)
    numbers = {
        name: _of_category(pair, name) for name in categories_of([pair.measured, pair.simulated])
    }
    name = max(numbers, key=lambda name: abs(numbers[name].nbytes or 0))
    nbytes = numbers[name].nbytes or 0
    if nbytes == 0:
        return Field("0", 0, "bytes", "every category is equal")
    return Field(
        f"{category_label(name)} {units.difference(nbytes)}",
        nbytes,
        "bytes",
        units.exact_bytes(nbytes),
    )


def _of_category(pair: Pair, name: str) -> Difference:
    one, other = pair.measured.memory.at_peak, pair.simulated.memory.at_peak
    return Difference(
        one.get(name, 0) if one else None,
        other.get(name, 0) if other else None,
    )


def _exact_field(nbytes: int | None) -> Field:
    if nbytes is None:
        return Field(units.NONE)
    return Field(units.count(nbytes), nbytes, "bytes", f"{units.gib(nbytes)} GiB")


def _bytes_field(number: Difference) -> Field:
    if number.nbytes is None:
        return Field(units.NONE)
    return Field(
        units.difference(number.nbytes),
        number.nbytes,
        "bytes",
        f"{number.measured:,} bytes measured, {number.simulated:,} simulated",
        "bad" if number.verdict == "apart" else "",
    )


def _percent_field(number: Difference) -> Field:
    if number.share is None:
        return Field(units.NONE)
    return Field(
        units.fine_percent(number.share).removesuffix(" %"),
        tip=f"{100 * number.share:.6g} %",
    )


def _in_percent(number: Difference) -> str:
    return "" if number.share is None else f" ({units.fine_percent(number.share)})"


def _distance(pair: Pair) -> float:
    share = pair.peak.share
    return math.inf if share is None else abs(share)
