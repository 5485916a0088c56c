"""What makes two records differ: settings, figures, and at the peak categories, modules and ops.

Plain data, the second record less the first. At the peak every level sums to the one above: the
groups of blocks of a category to its change, the categories to the change of `peak_allocated`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from profiler.analysis.module_paths import adapted, own, plain
from profiler.record import Holders, Memory, Record, Time
from profiler.trace import CATEGORIES

Value = int | float | None

#: What is compared of two records, and the unit of each.
FIGURES: dict[str, tuple[str, Callable[[Record], Value]]] = {
    "peak_allocated": ("bytes", lambda record: record.memory.peak_allocated),
    "peak_reserved": ("bytes", lambda record: record.memory.peak_reserved),
    "after_step_allocated": ("bytes", lambda record: record.memory.after_step_allocated),
    "load_peak": ("bytes", lambda record: record.memory.load_peak),
    "parameters": ("count", lambda record: record.params.total if record.params else None),
    "trainable": ("count", lambda record: record.params.trainable if record.params else None),
    "flops": ("FLOPs", lambda record: record.flops.total if record.flops else None),
    "step_time": ("seconds", lambda record: record.time.step if record.time else None),
}

#: Spec fields whose content another one gives, or that only say how it was typed.
_DERIVED = ("model_config",)
#: Keys of an adapter's configuration that say nothing of the step.
_UNTELLING = frozenset({"peft_version", "base_model_name_or_path", "revision", "auto_mapping"})


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both records; None where a record does not have it."""

    before: Value
    after: Value

    @property
    def amount(self) -> Value:
        """After less before."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    @property
    def share(self) -> Fraction | None:
        """The amount as a share of what was before; None if nothing was."""
        if self.amount is None or not self.before:
            return None
        return Fraction(self.amount) / Fraction(self.before)


@dataclass(frozen=True, slots=True)
class Setting:
    """A field in which the two records differ; None where a record does not have it."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Blocks:
    """Alike blocks of one record: `count` of them, `bytes` in all, asked for by these lines."""

    dtype: str
    shape: tuple[int, ...]
    count: int
    bytes: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A part of a category's change: what `op` allocates in some modules.

    Attributes:
        op: "" where only the module is known (a record that names no ops).
        modules: paths; empty for the rest, what neither record names.
        change: bytes, the second record less the first.
        before, after: the blocks that are not the same in both. One of them is empty if that
            record has none; both if nothing is known of blocks.
    """

    category: str
    op: str
    modules: tuple[str, ...]
    change: int
    before: tuple[Blocks, ...] = ()
    after: tuple[Blocks, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Two records and what makes them differ.

    Attributes:
        figures: by their names in `FIGURES`, those that either record has.
        categories: bytes at the peak of those that either holds, in stacking order.
        groups: parts of each category's change, the largest first; empty where none changed.
        phases: in which phase each record's peak is, "" where it is not known.
    """

    before: Record
    after: Record
    settings: list[Setting]
    environment: list[Setting]
    figures: dict[str, Change]
    categories: dict[str, Change]
    groups: dict[str, list[Group]]
    phases: tuple[str, str]

    @property
    def mixed(self) -> bool:
        """Whether one record is measured and the other simulated."""
        return self.before.source != self.after.source

    @property
    def changed(self) -> bool:
        """Whether any figure or category differs, or the status does."""
        return self.before.status != self.after.status or any(
            change.before != change.after
            for change in (*self.figures.values(), *self.categories.values())
        )


def difference(before: Record, after: Record) -> Difference:
    """What makes the second record differ from the first."""
    figures = {
        name: Change(read(before), read(after))
        for name, (_, read) in FIGURES.items()
        if read(before) is not None or read(after) is not None
    }
    if before.source != after.source:
        figures.pop("step_time", None)  # a prediction and a run are not one figure
    held = [one.memory.at_peak for one in (before, after)]
    categories = {
        name: Change(held[0].get(name, 0), held[1].get(name, 0))
        for name in categories_of(held)
        if all(held)
    }
    return Difference(
        before=before,
        after=after,
        settings=settings(before, after),
        environment=environment(before, after),
        figures=figures,
        categories=categories,
        groups={
            name: groups(before.memory, after.memory, name) for name, change in categories.items()
        },
        phases=(phase_of_peak(before.memory), phase_of_peak(after.memory)),
    )


def categories_of(held: Iterable[Mapping[str, int]]) -> list[str]:
    """The categories with bytes in any of several `at_peak`, in stacking order."""
    names = {name for one in held for name, nbytes in one.items() if nbytes}
    return [name for name in CATEGORIES if name in names] + sorted(names - set(CATEGORIES))


def phase_of_peak(memory: Memory) -> str:
    """The phase with the highest peak, "" if there is none."""
    return max(memory.phases, key=memory.phases.__getitem__, default="")


# --- what was asked for, and what it ran on -----------------------------------------------------


def settings(before: Record, after: Record) -> list[Setting]:
    """The resolved spec's fields that differ; of two adapters of one kind their options too.

    Of one cell in two environments an option counts only if both versions of its library have it.
    """
    result = list(_differing(_fields(before.spec), _fields(after.spec)))
    kinds = ["method"]
    if not any(one.name in ("model", "model_override") for one in result):
        kinds.append("model")
    for kind in kinds:
        ours, theirs = _configs(before.spec, after.spec, kind)
        result += [
            one
            for one in _differing(ours, theirs)
            if before.id != after.id or (one.name in ours and one.name in theirs)
        ]
    return result


def environment(before: Record, after: Record) -> list[Setting]:
    """What the two records ran on, where it differs."""
    return list(_differing(before.environment, after.environment))


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Setting]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Setting(name, before.get(name), after.get(name))


def _fields(spec: Mapping[str, Any]) -> dict[str, Any]:
    result = {name: value for name, value in spec.items() if name not in _DERIVED}
    method = result.get("method")
    if isinstance(method, dict):
        result["method"] = method.get("label")
    return result


def _configs(
    before: Mapping[str, Any], after: Mapping[str, Any], kind: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both configurations of the adapter or the model, if they are of one kind; else nothing."""
    found = []
    for spec in (before, after):
        method = spec.get("method")
        config = (
            spec.get("model_config")
            if kind == "model"
            else method.get("config")
            if isinstance(method, dict)
            else None
        )
        found.append(config if isinstance(config, dict) else {})
    type_key = "model_type" if kind == "model" else "peft_type"
    if not all(found) or found[0].get(type_key) != found[1].get(type_key):
        return {}, {}
    first, second = (
        {f"{kind}.{name}": value for name, value in config.items() if name not in _UNTELLING}
        for config in found
    )
    return first, second


# --- what is alive at the peak ------------------------------------------------------------------


def groups(before: Memory, after: Memory, category: str) -> list[Group]:
    """The parts of a category's change, the largest first; they sum to it.

    From `holders` by module and op. Of records that do not have them, from `modules` by module.
    """
    total = after.at_peak.get(category, 0) - before.at_peak.get(category, 0)
    if before.holders and after.holders:
        found = _by_op(before, after, category)
    else:
        found = _by_module(before, after, category)
    rest = total - sum(group.change for group in found)
    found.sort(key=lambda group: (-abs(group.change), group.op, group.modules))
    return found + ([Group(category, "", (), rest)] if rest else [])


def _by_op(before: Memory, after: Memory, category: str) -> list[Group]:
    sides = [_entries(memory, category) for memory in (before, after)]
    unnamed = [_unnamed(memory, category) for memory in (before, after)]
    merged: dict[tuple[Any, ...], dict[str, list[list[Blocks]]]] = defaultdict(dict)
    for module, op in dict.fromkeys((*sides[0], *sides[1])):
        blocks = _unequal(sides[0].get((module, op), []), sides[1].get((module, op), []))
        sizes = [sum(one.bytes for one in side) for side in blocks]
        if sizes[0] == sizes[1] or (not blocks[0] and sizes[1] <= unnamed[0]):
            continue
        if not blocks[1] and sizes[0] <= unnamed[1]:
            continue
        # What changed in the same way is one group.
        kinds = [tuple((one.dtype, one.shape, one.sources) for one in side) for side in blocks]
        merged[op, *kinds][module] = blocks
    result = []
    for (op, *_), parts in merged.items():
        first, second = (_summed(blocks[side] for blocks in parts.values()) for side in (0, 1))
        change = sum(one.bytes for one in second) - sum(one.bytes for one in first)
        if change:
            result.append(Group(category, op, tuple(sorted(parts)), change, first, second))
    return result


def _entries(memory: Memory, category: str) -> dict[tuple[str, str], list[Holders]]:
    """The named groups of a category by module and op."""
    result: dict[tuple[str, str], list[Holders]] = defaultdict(list)
    for holder in memory.holders:
        if holder.category == category and holder.op:
            result[own(holder.module), holder.op].append(holder)
    return result


def _unnamed(memory: Memory, category: str) -> int:
    """How large a group of a category may be that `holders` does not name."""
    rest = sum(one.bytes for one in memory.holders if one.category == category and not one.op)
    return min([rest, *(one.bytes for one in memory.holders if one.op)])


def _unequal(before: list[Holders], after: list[Holders]) -> list[list[Blocks]]:
    """The blocks of one op in one module that are not the same in both records.

    Those of the same line first; then, as a version of a library moves its lines, of any line.
    """
    lines = [
        {(one.dtype, tuple(one.shape or ()), one.source): one for one in side}
        for side in (before, after)
    ]
    same = {
        key
        for key in lines[0].keys() & lines[1].keys()
        if (lines[0][key].count, lines[0][key].bytes) == (lines[1][key].count, lines[1][key].bytes)
    }
    kinds = [
        _summed(
            [Blocks(one.dtype or "", tuple(one.shape or ()), one.count, one.bytes, (one.source,))]
            for key, one in side.items()
            if key not in same
        )
        for side in lines
    ]
    sizes = [{(one.dtype, one.shape, one.count, one.bytes) for one in side} for side in kinds]
    equal = sizes[0] & sizes[1]
    return [
        [one for one in side if (one.dtype, one.shape, one.count, one.bytes) not in equal]
        for side in kinds
    ]


def _summed(parts: Iterable[Iterable[Blocks]]) -> tuple[Blocks, ...]:
    """Blocks of one dtype and shape together, in a fixed order."""
    found: dict[tuple[str, tuple[int, ...]], list[Blocks]] = defaultdict(list)
    for part in parts:
        for one in part:
            found[one.dtype, one.shape].append(one)
    return tuple(
        Blocks(
            dtype,
            shape,
            sum(one.count for one in same),
            sum(one.bytes for one in same),
            tuple(sorted({line for one in same for line in one.sources if line})),
        )
        for (dtype, shape), same in sorted(found.items())
    )


def _by_module(before: Memory, after: Memory, category: str) -> list[Group]:
    changes = Counter(held(after, category))
    changes.subtract(held(before, category))
    return [Group(category, "", (path,), change) for path, change in changes.items() if change]


def held(memory: Memory, category: str) -> dict[str, int]:
    """Bytes of a category by module, as far as `modules` has a column of its name; alike layers
    are one, and what an adapter put into a layer belongs to the layer."""
    rows = memory.modules
    wrapped = adapted(rows.keys())
    result: Counter[str] = Counter()
    for path, row in rows.items():
        if path and row.get(category):
            result[plain(path, wrapped)] += row[category]
    return dict(result)


def by_module(found: Difference) -> dict[str, int]:
    """Bytes that each module holds more at the peak, the largest change first.

    Of parameters, gradients, optimizer state and activations, which `modules` attributes exactly.
    """
    totals: Counter[str] = Counter()
    for sign, record in ((-1, found.before), (1, found.after)):
        wrapped = adapted(record.memory.modules.keys())
        for path, row in record.memory.modules.items():
            totals[plain(path, wrapped)] += sign * sum(row.values())
    changed = {path: change for path, change in totals.items() if change}
    return dict(sorted(changed.items(), key=lambda item: (-abs(item[1]), item[0])))


# --- time and FLOPs -----------------------------------------------------------------------------


def seconds(time: Time | None) -> dict[str, float]:
    """Seconds by op and phase, and what is outside of kernels."""
    outside = time.outside_kernels if time else {}
    waiting = {f"time outside kernels in the {phase}": value for phase, value in outside.items()}
    return _kernels(time, "seconds") | waiting


def flops(time: Time | None) -> dict[str, float]:
    """FLOPs by op and phase, as the kernels count them."""
    return _kernels(time, "flops")


def _kernels(time: Time | None, what: str) -> dict[str, float]:
    result: dict[str, float] = {}
    for kernel in time.kernels if time else ():
        name = f"{kernel.op} in the {kernel.phase}"
        result[name] = result.get(name, 0) + getattr(kernel, what)
    return result


def within_spread(before: Time | None, after: Time | None) -> bool:
    """Whether two measured times differ less than the steps of one run do, on average."""
    times = [time for time in (before, after) if time]
    spreads = [time.spread.values() for time in times if time.spread]
    noise = sum(max(spread) - min(spread) for spread in spreads) / 2
    return len(times) == 2 and 0 < abs(times[0].step - times[1].step) < noise


def leading(
    before: Mapping[str, float], after: Mapping[str, float], change: float
) -> tuple[list[str], float]:
    """The entries that changed most in the direction of `change`, by the same amount each.

    Returns their names in order and the amount, `([], 0)` where none changed that way.
    """
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in {**after, **before}}
    same_way = {name: value for name, value in changes.items() if value * change > 0}
    if not same_way:
        return [], 0
    most = max(same_way.values(), key=abs)
    names = [name for name, value in same_way.items() if abs(value - most) <= 1e-9 * abs(most)]
    return sorted(names), most
