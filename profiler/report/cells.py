"""Records as the page's cells: named, ordered, grouped. The order given does not matter."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from profiler.analysis import difference
from profiler.record import Memory, Record
from profiler.report.text import clean

# In the order in which they tell two runs of one method apart best.
_ENVIRONMENT = (
    "transformers",
    "peft",
    "torch",
    "bitsandbytes",
    "accelerate",
    "profiler",
    "commit",
    "fingerprint",
)
#: Labels of at most so many characters are left as they are.
SHORT = 30
# Said otherwise (the label, the model, the device, the workload) or derived from those.
_SAID = {
    "model",
    "model_override",
    "model_config",
    "method",
    "device",
    "batch_size",
    "seq_len",
    "grad_accumulation",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One record on the page.

    `key` is unique in the page and safe as an id. `name` is unique among the cells of one model,
    device and source: the method as typed, with what tells it from its like. `short` is too; it
    leaves out the options that all the model's runs of a preset share, if the name is long.
    `method` is the short name without what tells runs of one method apart.
    """

    key: str
    record: Record
    model: str
    device: str
    name: str
    short: str
    method: str
    workload: str

    @property
    def source(self) -> str:
        return self.record.source

    @property
    def memory(self) -> Memory:
        return self.record.memory

    @property
    def peak(self) -> int | None:
        """What the step needs: reserved by the allocator, or allocated where nothing reserves."""
        memory = self.record.memory
        return memory.peak_allocated if memory.peak_reserved is None else memory.peak_reserved

    @property
    def drawable(self) -> bool:
        """Whether there is a memory breakdown to draw."""
        return self.memory.peak_allocated is not None and bool(self.memory.at_peak)

    @property
    def fits(self) -> bool | None:
        """Whether it fits its card; None where no card is simulated."""
        fits = self.record.fits
        return None if fits is None else fits.headroom >= 0


def arrange(records: Iterable[Record]) -> list[Cell]:
    """The cells of a page: by model, source and card, the largest method first on every card."""
    plain = [
        Cell(
            key="",
            record=record,
            model=model_of(record),
            device=clean(str(record.spec.get("device", "?"))),
            name=clean(record.label) or "?",
            short="",
            method="",
            workload=workload_of(record),
        )
        for record in records
    ]
    named = _numbered(_qualified(_shortened(plain)))
    largest: dict[Hashable, int] = defaultdict(int)
    for cell in named:
        group = (cell.model, cell.source, cell.name)
        largest[group] = max(largest[group], cell.peak or 0)

    def place(cell: Cell) -> tuple[Any, ...]:
        fits = cell.record.fits
        return (
            cell.model,
            cell.source != "simulated",
            fits.capacity if fits else 2**63,
            cell.device,
            -largest[cell.model, cell.source, cell.name],
            cell.name,
            cell.record.id,
        )

    return [
        dataclasses.replace(cell, key=f"c{index}")
        for index, cell in enumerate(sorted(named, key=place))
    ]


def model_of(record: Record) -> str:
    """The model's name, with what was overridden in its configuration."""
    spec = record.spec
    overrides = spec.get("model_override") or ()
    name = str(spec.get("model", "?"))
    return clean(f"{name} ({', '.join(map(str, overrides))})" if overrides else name)


def workload_of(record: Record) -> str:
    """Batch and length of a step, "batch 1 × 128"."""
    spec = record.spec
    text = f"batch {spec.get('batch_size', '?')} × {spec.get('seq_len', '?')}"
    accumulation = spec.get("grad_accumulation", 1)
    return clean(text if accumulation in (1, None) else f"{text} × {accumulation} accumulated")


Key = TypeVar("Key", bound=Hashable)


def grouped(cells: Iterable[Cell], key: Callable[[Cell], Key]) -> dict[Key, list[Cell]]:
    """Cells by a key, in order of first appearance."""
    groups: dict[Key, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return groups


def distinct(values: Iterable[Key]) -> list[Key]:
    """Each value once, in order of first appearance."""
    return list(dict.fromkeys(values))


def categories_of(cells: Iterable[Cell]) -> list[str]:
    """The memory categories that any of the cells holds at its peak, in stacking order."""
    return difference.categories_of(cell.memory.at_peak for cell in cells)


def _shortened(cells: list[Cell]) -> list[Cell]:
    """The cells with short names: `lora:r=8` and `lora:r=64` where the other options agree."""
    result: list[Cell] = []
    for group in grouped(cells, lambda cell: (cell.model, cell.source)).values():
        presets: dict[str, dict[str, list[str]]] = {}
        for label in distinct(cell.name for cell in group):
            preset, _, options = label.partition(":")
            # JSON among the options may hold commas of its own.
            parts = [options] if set(options) & set('[{"') else options.split(",")
            presets.setdefault(preset, {})[label] = parts
        short: dict[str, str] = {}
        for preset, labels in presets.items():
            shared = set.intersection(*(set(parts) for parts in labels.values()))
            if max(map(len, labels)) <= SHORT:
                shared = set()
            for label, parts in labels.items():
                kept = ",".join(part for part in parts if part not in shared)
                short[label] = f"{preset}:{kept}" if kept else preset
        if len(set(short.values())) < len(short):
            short = {label: label for label in short}
        result += [
            dataclasses.replace(cell, short=short[cell.name], method=short[cell.name])
            for cell in group
        ]
    return result


def _qualified(cells: list[Cell]) -> list[Cell]:
    """The cells with what differs between the runs of one method added to their names."""
    result: list[Cell] = []
    for group in grouped(cells, lambda cell: (cell.model, cell.source, cell.name)).values():
        specs = [comparable(cell.record) for cell in group]
        differing = [
            name
            for name in distinct(name for spec in specs for name in spec)
            if len({spec.get(name) for spec in specs}) > 1
        ]
        for cell, spec in zip(group, specs, strict=True):
            extra = [f"{name} {spec[name]}".strip() for name in differing if spec.get(name)]
            result.append(_extended(cell, *extra))
    return result


def comparable(record: Record) -> dict[str, str]:
    """What may differ between two cells of one method, as text. The label stands already."""
    spec = {"": workload_of(record)}
    spec |= {
        name.replace("_", " "): value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in sorted(record.spec.items())
        if name not in _SAID
    }
    return spec


def _numbered(cells: list[Cell]) -> list[Cell]:
    """Cells that only their environment tells apart say so; the rest get a number."""
    result: list[Cell] = []
    for group in grouped(cells, _place).values():
        if len(group) > 1:
            for name in _ENVIRONMENT:
                values = [str(cell.record.environment.get(name, "?")) for cell in group]
                if len(set(values)) == len(group):
                    group = [
                        _extended(cell, f"{name} {value}")
                        for cell, value in zip(group, values, strict=True)
                    ]
                    break
            else:
                ordered = sorted(group, key=lambda cell: (cell.record.id, cell.record.to_json()))
                group = [_extended(cell, f"#{number}") for number, cell in enumerate(ordered, 1)]
        result += group
    return result


def _place(cell: Cell) -> tuple[str, str, str, str]:
    return cell.model, cell.source, cell.device, cell.name


def _extended(cell: Cell, *words: str) -> Cell:
    """The cell with words added to both of its names."""
    return dataclasses.replace(
        cell,
        name=clean(", ".join([cell.name, *words])),
        short=clean(", ".join([cell.short, *words])),
    )
