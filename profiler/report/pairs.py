"""Measured cells and the simulated ones that stand for the same run on the same machine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.hardware import devices
from profiler.record import Record
from profiler.report.cells import Cell, grouped

#: Pairs whose peaks differ by more than this share of the measured one are marked.
TOLERANCE = 0.01

Verdict = Literal["equal", "within", "apart", "unknown"]

# What can make two runs of one spec differ, beside the machine.
_VERSIONS = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "profiler",
    "profiler_sources",
)
# Words of a driver's name for a card that say nothing of which card it is.
_BRANDS = frozenset({"nvidia", "tesla", "geforce", "hbm2", "hbm2e", "hbm3", "hbm3e"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of bytes, measured and simulated; None where it is not known."""

    measured: int | None
    simulated: int | None

    @property
    def nbytes(self) -> int | None:
        """Simulated less measured."""
        if self.measured is None or self.simulated is None:
            return None
        return self.simulated - self.measured

    @property
    def share(self) -> float | None:
        """The difference as a share of the measured bytes; None if there are none of them."""
        if self.nbytes is None or (self.nbytes and not self.measured):
            return None
        return self.nbytes / self.measured if self.measured else 0.0

    @property
    def verdict(self) -> Verdict:
        """How well the two agree."""
        if self.nbytes is None:
            return "unknown"
        if self.nbytes == 0:
            return "equal"
        close = self.share is not None and abs(self.share) <= TOLERANCE
        return "within" if close else "apart"


@dataclass(frozen=True, slots=True)
class Pair:
    """A measured cell and a simulated one of the same spec, but for the device, on one machine.

    `differing` says in which versions their environments differ.
    """

    measured: Cell
    simulated: Cell
    differing: tuple[str, ...] = ()

    @property
    def peak(self) -> Difference:
        """Of the peak allocated."""
        return Difference(self.measured.memory.peak_allocated, self.simulated.memory.peak_allocated)


def pair(cells: Sequence[Cell]) -> list[Pair]:
    """Every measured cell that has a simulated counterpart, with the nearest one."""
    simulated = grouped(
        [cell for cell in cells if cell.source == "simulated"], lambda cell: _content(cell.record)
    )
    result = []
    for cell in cells:
        if cell.source != "measured":
            continue
        candidates = [
            Pair(cell, other, _differing(cell.record, other.record))
            for other in simulated.get(_content(cell.record), [])
            if same_machine(cell.record, other.record)
        ]
        if candidates:
            result.append(min(candidates, key=lambda found: len(found.differing)))
    return result


def same_machine(measured: Record, simulated: Record) -> bool:
    """Whether a simulation is of the machine that a record was measured on."""
    device, named = measured.spec.get("device"), str(simulated.spec.get("device"))
    if device == "cpu":
        return named == "sim:cpu" and all(
            measured.environment.get(key) == simulated.environment.get(key)
            for key in ("cpu", "cpu_features")
        )
    return device == "cuda" and is_card(str(measured.environment.get("device") or ""), named)


def is_card(reported: str, key: str) -> bool:
    """Whether a card's name as its driver reports it is that of a card in `hardware.toml`.

    Args:
        reported: as NVML gives it, such as "NVIDIA A100-SXM4-80GB".
        key: a name that `--device` takes, such as "a100-80gb".

    A word that is not in the table's name (Ti, Laptop, PCIe, MIG, another memory size) makes it
    another card.
    """
    card = devices.load().get(key)
    if card is None:
        return False
    found, wanted = _words(reported), _words(key)
    known = wanted | _words(card.name) | _BRANDS | {f"{card.memory_gb}gb"}
    return wanted <= found <= known


def _words(name: str) -> set[str]:
    """The words of a card's name; "80 GB" is one."""
    return set(re.findall(r"[a-z0-9]+", re.sub(r"(\d)\s+gb\b", r"\1gb", name.lower())))


def _content(record: Record) -> str:
    """What was run, but for the device and for how it was typed."""
    spec = {name: value for name, value in record.spec.items() if name != "device"}
    if isinstance(spec.get("method"), dict):
        spec["method"] = {name: value for name, value in spec["method"].items() if name != "label"}
    if spec.get("model_config"):  # it holds what was overridden
        spec = {
            name: value for name, value in spec.items() if name not in ("model", "model_override")
        }
    return json.dumps(spec, sort_keys=True, default=str)


def _differing(measured: Record, simulated: Record) -> tuple[str, ...]:
    found = []
    for name in _VERSIONS:
        one, other = measured.environment.get(name), simulated.environment.get(name)
        if one != other:
            found.append(f"{name.replace('_', ' ')} {one} measured, {other} simulated")
    return tuple(found)
