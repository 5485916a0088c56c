"""Differences between records in words: for a terminal, as Markdown, as JSON.

All three are made from the same sentences, and these from the two records alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from profiler.analysis import difference
from profiler.analysis.difference import FIGURES, Blocks, Change, Difference, Group, Setting
from profiler.analysis.growth import Failure, Limit
from profiler.export import escaping
from profiler.lines import one_line
from profiler.record import Record
from profiler.report import causes, units
from profiler.report.cells import arrange
from profiler.report.palette import category_label
from profiler.report.text import listing, shorten

if TYPE_CHECKING:
    from rich.table import Table

#: A longer value or list of modules is shortened.
VALUE = 60
MODULES = 3
#: Groups below this share of a category's largest are counted, not told.
NOTABLE = 0.01

_LABELS = {"flops": "FLOPs", "parameters": "parameters in all", "trainable": "trained parameters"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be told: two sets of records, what is paired, and what fails.

    `before` and `after` are the sets' names, as typed; `limit` is None where nothing can fail.
    """

    before: str
    after: str
    differences: list[Difference]
    only_before: list[Record]
    only_after: list[Record]
    limit: Limit | None = None
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Part:
    """A category's change, and the groups of blocks that make it."""

    name: str
    change: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Told:
    """A pair in words."""

    name: str
    lead: str
    notes: list[str]
    settings: list[str]
    environment: list[str]
    figures: list[tuple[str, str, str, str]]
    same: str
    parts: list[Part]
    more: list[str]


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison in words: the pairs that differ most, the others counted.

    `summary` has a row for each pair: cell, peak in A and in B, change, share.
    """

    comparison: Comparison
    summary: list[tuple[str, str, str, str, str]]
    told: list[Told]
    closing: list[str]
    failures: list[str]
    verdict: str


def report(comparison: Comparison, top: int) -> Report:
    """Put a comparison into words.

    Args:
        top: pairs that are told in full, and groups of blocks that are named for each category.
    """
    pairs = comparison.differences
    names = pair_names(pairs)
    changed = [place for place, found in enumerate(pairs) if found.changed]
    changed.sort(key=lambda place: -abs(_weight(pairs[place])))
    alike = [place for place, found in enumerate(pairs) if not found.changed]
    without = [place for place in alike if pairs[place].after.memory.peak_allocated is None]
    equal = [place for place in alike if place not in without]
    untold = max(0, len(changed) - top)
    failures = [_failure(one, pairs, names) for one in comparison.failures]
    verdict = ""
    if comparison.limit is not None:
        verdict = (
            f"{len(failures)} failure{'s' if len(failures) > 1 else ''} "
            f"(--fail-over {comparison.limit.text})"
            if failures
            else f"nothing grew by more than {comparison.limit.text}"
        )
    return Report(
        comparison=comparison,
        summary=[
            (name, *_row(found)) for name, found in zip(names, pairs, strict=True) if found.changed
        ],
        told=[tell(pairs[place], names[place], top) for place in changed[:top]],
        closing=[
            *(
                [f"equal in A and B: {names[equal[0]] if len(equal) == 1 else _many(len(equal))}"]
                if equal
                else []
            ),
            *(
                f"without a result in A and B: {names[place]}, {pairs[place].after.status}"
                for place in without
            ),
            *([f"not told in full: {_many(untold)} (--top)"] if untold else []),
            *(f"only in A: {name}" for name in _names(comparison.only_before)),
            *(f"only in B: {name}" for name in _names(comparison.only_after)),
        ],
        failures=failures,
        verdict=verdict,
    )


def tell(found: Difference, name: str, top: int) -> Told:
    """One pair in words."""
    parts = [
        Part(
            category_label(category),
            _signed(found.categories[category].amount, "bytes"),
            _lines(found, category, top),
        )
        for category in sorted(
            found.categories, key=lambda name: -abs(found.categories[name].amount or 0)
        )
        if found.groups[category]
    ]
    unlike = {name for name, change in found.figures.items() if change.before != change.after}
    return Told(
        name=name,
        lead=lead(found),
        notes=_notes(found),
        settings=[_setting(one) for one in found.settings],
        environment=[_setting(one) for one in found.environment if one.name != "fingerprint"],
        figures=[
            (
                label(name, found),
                *both_sides(change, FIGURES[name][0]),
                _change(change, FIGURES[name][0]),
            )
            for name, change in found.figures.items()
            if name in unlike
        ],
        same=listing([label(name, found) for name in found.figures if name not in unlike]),
        parts=parts,
        more=[*_modules(found, top), *_ops(found)],
    )


def lead(found: Difference) -> str:
    """The peak's difference in one sentence, with the category and the blocks that make most of
    it; "" where a record has no peak."""
    peak = found.figures.get("peak_allocated")
    if peak is None or peak.amount is None:
        return ""
    if not peak.amount:
        same = not any(change.amount for change in found.categories.values())
        return f"B holds as much at the peak as A, {'of the same' if same else 'of other'} kinds."
    word = "more" if peak.amount > 0 else "less"
    text = f"B holds {units.binary(int(peak.amount))} {word} at the peak than A"
    if peak.share is not None:
        text += f" ({units.fine_percent(float(peak.share))})"
    same_way = {
        category: change.amount
        for category, change in found.categories.items()
        if (change.amount or 0) * peak.amount > 0
    }
    if not same_way:
        return f"{text}."
    category = max(same_way, key=lambda name: abs(same_way[name] or 0))
    nbytes = int(same_way[category] or 0)
    text += f"; above all {category_label(category)}, {_signed(nbytes, 'bytes')}"
    named = [one for one in found.groups[category] if one.modules and one.change * nbytes > 0]
    if not named:
        return f"{text}."
    return f"{text}: {blocks_of(named[0])}."


def _many(cells: int) -> str:
    return "1 cell" if cells == 1 else f"{cells} cells"


# --- blocks at the peak -------------------------------------------------------------------------


def _lines(found: Difference, category: str, top: int) -> list[str]:
    """The groups of a category, the largest changes first, what is left counted."""
    groups = found.groups[category]
    least = NOTABLE * max((abs(one.change) for one in groups), default=0)
    told = [one for one in groups if abs(one.change) >= least][:top]
    lines = [f"{_signed(one.change, 'bytes')}: {blocks_of(one)}" for one in told]
    left = [one for one in groups if one not in told]
    if left:
        nbytes = sum(one.change for one in left)
        many = f"{len(left)} more group{'s' if len(left) > 1 else ''}"
        lines.append(f"{_signed(nbytes, 'bytes') if nbytes else '±0'}: {many}")
    return lines


def blocks_of(group: Group) -> str:
    """What a group consists of: "64 × aten.mul float32 [1, 64, 64] in layers.*.norm (file.py:9),
    none in A"."""
    if not group.modules:
        return "what the records do not name"
    where = _where(group.modules)
    if not group.before and not group.after:
        return where
    sources = _sources(group)
    place = f"in {where}{f' ({sources})' if sources else ''}"
    op = group.op
    if not group.before or not group.after:
        side, here = ("A", group.after) if not group.before else ("B", group.before)
        return f"{listing([_blocks(one, op) for one in here])} {place}, none in {side}"
    if len(group.before) == len(group.after) == 1:
        return f"{_instead(group.before[0], group.after[0], op)} {place}"
    first, second = (
        listing([_blocks(one, "") for one in side]) for side in (group.before, group.after)
    )
    return f"{op}: {second} instead of {first} {place}"


def _instead(before: Blocks, after: Blocks, op: str) -> str:
    """One kind of blocks in place of another: what differs is said twice, the rest once."""
    count = f"{after.count}"
    if after.count != before.count:
        count = f"{after.count} instead of {before.count}"
    dtype = after.dtype
    if after.dtype != before.dtype:
        dtype = f"{after.dtype} instead of {before.dtype}"
    shape = _shape(after.shape)
    if after.shape != before.shape:
        shape = f"{shape} instead of {_shape(before.shape)}"
    text = f"{count} × {op} {dtype} {shape}"
    if (after.count, after.dtype, after.shape) == (before.count, before.dtype, before.shape):
        # The allocator gave larger blocks for the same tensors.
        text += f" in blocks of {units.binary(after.bytes)} instead of {units.binary(before.bytes)}"
    return text


def _blocks(one: Blocks, op: str) -> str:
    return " ".join(word for word in (f"{one.count} ×", op, one.dtype, _shape(one.shape)) if word)


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _where(modules: Sequence[str]) -> str:
    names = [shorten(path, VALUE) or "the model itself" for path in modules]
    more = [f"{len(names) - MODULES} more"] if len(names) > MODULES else []
    return listing([*names[:MODULES], *more])


def _sources(group: Group) -> str:
    """The source lines; those of A after those of B, where they are not the same."""
    sides = [
        sorted({line for one in side for line in one.sources})
        for side in (group.before, group.after)
    ]
    ours, theirs = sides[1], [line for line in sides[0] if line not in sides[1]]
    text = ", ".join(ours[:MODULES])
    if not ours or not theirs:
        return text or ", ".join(theirs[:MODULES])
    return f"{text}; in A {', '.join(theirs[:MODULES])}"


# --- the rest of a pair -------------------------------------------------------------------------


def _notes(found: Difference) -> list[str]:
    notes = []
    before, after = found.before, found.after
    if found.mixed:
        notes.append(
            f"A is {before.source} and B is {after.source}: what the simulation gets wrong is part "
            "of every difference, and times are not compared"
        )
    if before.status != after.status:
        notes.append(f"A is {before.status}, B is {after.status}")
    for side, record in (("A", before), ("B", after)):
        if record.error:
            notes.append(f"{side}: {one_line(record.error)}")
    if all(found.phases) and found.phases[0] != found.phases[1]:
        notes.append(
            f"the peak of A is in the {found.phases[0]}, that of B in the {found.phases[1]}"
        )
    if difference.within_spread(before.time, after.time):
        notes.append("the step times differ less than the steps of one run do")
    return notes


def _modules(found: Difference, top: int) -> list[str]:
    """The modules that hold more or less."""
    changes = difference.by_module(found)
    if not changes:
        return []
    told = list(changes.items())[:top]
    words = [f"{_where([path])} {_signed(change, 'bytes')}" for path, change in told]
    rest = len(changes) - len(told)
    if rest:
        words.append(f"{rest} more")
    return [
        "by module (parameters, gradients, optimizer state and activations at the peak): "
        + listing(words)
    ]


def _ops(found: Difference) -> list[str]:
    """The ops that make most of a change in FLOPs or time."""
    times = (found.before.time, found.after.time)
    result = []
    for name, read in (("flops", difference.flops), ("step_time", difference.seconds)):
        change = found.figures.get(name)
        if change is None or not change.amount:
            continue
        before, after = (read(time) for time in times)
        size = _flops if name == "flops" else _seconds
        cause = causes.above_all(after, before, change.amount, size)
        if cause:
            result.append(f"{label(name)} {_change(change, FIGURES[name][0])}: {cause}")
    return result


def _setting(one: Setting) -> str:
    before, after = (_value(value) for value in (one.before, one.after))
    return f"{one_line(one.name)}: {before} → {after}"


def _value(value: Any) -> str:
    if value is None:
        return units.NONE
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return shorten(one_line(text), VALUE) or '""'


def _failure(one: Failure, pairs: Sequence[Difference], names: Sequence[str]) -> str:
    cell = next(
        (name for found, name in zip(pairs, names, strict=True) if found.after.id == one.cell),
        one.cell,
    )
    if one.before is None or one.after is None:
        return f"{cell}: {one.reason}"
    change = Change(one.before, one.after)
    unit = FIGURES[one.metric][0]
    first, second = both_sides(change, unit)
    return f"{cell}: {label(one.metric)} {_change(change, unit)}, {first} → {second}"


def _row(found: Difference) -> tuple[str, str, str, str]:
    """A pair's row of the summary."""
    peak = found.figures.get("peak_allocated", Change(None, None))
    sides = [
        text if value is not None else record.status
        for text, value, record in zip(
            both_sides(peak, "bytes"),
            (peak.before, peak.after),
            (found.before, found.after),
            strict=True,
        )
    ]
    share = units.fine_percent(float(peak.share)) if peak.share is not None else units.NONE
    return sides[0], sides[1], _signed(peak.amount, "bytes"), share


def pair_names(pairs: Sequence[Difference]) -> list[str]:
    """A name for each pair, none twice."""
    names = _names([found.after for found in pairs])
    return [
        f"{name}, but A {found.before.source}" if found.mixed else name
        for name, found in zip(names, pairs, strict=True)
    ]


def _names(records: Sequence[Record]) -> list[str]:
    """Names that tell records apart."""
    cells = {id(cell.record): cell for cell in arrange(records)}
    found = [cells[id(record)] for record in records]
    return [
        one_line(f"{cell.name}, {cell.model} on {cell.device}, {cell.workload} ({cell.source})")
        for cell in found
    ]


def _weight(found: Difference) -> float:
    """How much a pair's peak changed, for the order."""
    peak = found.figures.get("peak_allocated")
    if peak is None or peak.share is None:
        return float("inf") if found.before.status != found.after.status else 0.0
    return float(peak.share)


# --- numbers ------------------------------------------------------------------------------------


def label(name: str, found: Difference | None = None) -> str:
    """How a figure of `FIGURES` is written."""
    text = _LABELS.get(name, name.replace("_", " "))
    time = found.after.time or found.before.time if found is not None else None
    return f"{text}, {time.source}" if name == "step_time" and time else text


def both_sides(change: Change, unit: str) -> tuple[str, str]:
    """A figure in both records, as written."""
    before, after = change.before, change.after
    if unit == "FLOPs":
        size, name = units.flops_unit(int(one) for one in (before, after) if one is not None)
        return tuple(  # type: ignore[return-value]
            units.NONE if one is None else f"{units.scaled(one, size)} {name}"
            for one in (before, after)
        )
    return _size(before, unit), _size(after, unit)


def _change(change: Change, unit: str) -> str:
    text = _signed(change.amount, unit)
    if change.amount and change.share is not None:
        text += f" ({units.fine_percent(float(change.share))})"
    return text


def amount(change: Change, unit: str) -> str:
    """A change, as written, without its share."""
    return _signed(change.amount, unit)


def _signed(value: float | None, unit: str) -> str:
    return units.NONE if value is None else units.signed(value, _size(abs(value), unit))


def _size(value: float | None, unit: str) -> str:
    if value is None:
        return units.NONE
    if unit == "bytes":
        return units.binary(int(value))
    if unit == "FLOPs":
        return _flops(value)
    return _seconds(value) if unit == "seconds" else units.count(int(value))


def _seconds(value: float) -> str:
    value = abs(value)
    return f"{value * 1e6:.3g} µs" if value < 1e-4 else causes.duration(value)


def _flops(value: float) -> str:
    size, name = units.flops_unit([int(abs(value))])
    return f"{units.scaled(abs(value), size)} {name}"


# --- the three forms ----------------------------------------------------------------------------


def text(told: Report, stream: TextIO) -> str:
    """For a terminal: tables, and lines below them."""
    from profiler import terminal

    comparison = told.comparison
    blocks: list[str | Table] = [f"A: {comparison.before}", f"B: {comparison.after}", ""]
    if len(comparison.differences) > 1 and told.summary:
        blocks += [
            _table(("cell", "peak in A", "peak in B", "change", "share"), told.summary),
            "",
        ]
    for one in told.told:
        blocks += [one.name, *(f"  {line}" for line in [one.lead, *one.notes] if line)]
        for title, lines in (("set otherwise", one.settings), ("ran on", one.environment)):
            if lines:
                blocks.append(f"  {title}: {'; '.join(lines)}")
        if one.figures:
            blocks += ["", _table(("", "A", "B", "change"), one.figures)]
        if one.same:
            blocks.append(f"the same: {one.same}")
        if one.parts:
            blocks.append("")
        for part in one.parts:
            blocks += [f"{part.name} {part.change}", *(f"  {line}" for line in part.lines)]
        blocks += [*one.more, ""]
    blocks += [*told.closing, *(f"FAILS: {line}" for line in told.failures)]
    if told.verdict:
        blocks.append(told.verdict)
    safe = (one_line(block) if isinstance(block, str) else block for block in blocks)
    return terminal.text(stream, *safe)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from profiler import terminal

    shown = terminal.plain_table()
    for place, head in enumerate(heads):
        if place:
            shown.add_column(head, justify="right", no_wrap=True)
        else:
            shown.add_column(head, overflow="fold", min_width=20)
    for row in rows:
        shown.add_row(*map(one_line, row))
    return shown


def markdown(told: Report) -> str:
    """For a comment on a pull request; what a record holds is text there and nothing else."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profiler.report"),
        finalize=lambda value: escaped(value) if isinstance(value, str) else value,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # `finalize` does it, for HTML and Markdown both
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("diff.md").render(told=told)


def escaped(text: str) -> str:
    r"""Text on one line that Markdown and HTML read as text, even the parts that GitHub links.

    >>> escaped("layers.*.<b>|")
    'layers.\\*.\\<b\\>\\|'
    """
    # An @ would call someone, and an address become a link.
    text = escaping.markdown(text).replace("@", "&#64;")
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def data(comparison: Comparison) -> dict[str, Any]:
    """All of a comparison as plain data, for a script. Amounts are B less A."""

    def cell(record: Record) -> dict[str, Any]:
        return {
            "id": record.id,
            "label": record.label,
            "status": record.status,
            "source": record.source,
            "fingerprint": record.environment.get("fingerprint"),
        }

    def change(one: Change) -> dict[str, Any]:
        return {"before": one.before, "after": one.after, "change": one.amount}

    return {
        "before": comparison.before,
        "after": comparison.after,
        "pairs": [
            {
                "before": cell(found.before),
                "after": cell(found.after),
                "mixed_sources": found.mixed,
                "settings": [asdict(one) for one in found.settings],
                "environment": [asdict(one) for one in found.environment],
                "phase_of_peak": {"before": found.phases[0], "after": found.phases[1]},
                "figures": {
                    name: {"unit": FIGURES[name][0], **change(one)}
                    for name, one in found.figures.items()
                },
                "at_peak": {name: change(one) for name, one in found.categories.items()},
                "groups": {
                    name: [asdict(one) for one in groups] for name, groups in found.groups.items()
                },
                "modules": difference.by_module(found),
            }
            for found in comparison.differences
        ],
        "only_before": [cell(record) for record in comparison.only_before],
        "only_after": [cell(record) for record in comparison.only_after],
        "fail_over": comparison.limit.text if comparison.limit is not None else None,
        "failures": [asdict(one) for one in comparison.failures],
    }
