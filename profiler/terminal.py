"""What a sweep shows a person: the table of results, and progress while cells run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

from rich import box
from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from profiler import grid
from profiler.lines import one_line
from profiler.record import Record
from profiler.report import units
from profiler.runner import Outcome, Task
from profiler.spec import RunSpec

_STYLES = {"ok": "green", "oom": "yellow", "unsupported": "dim"}

_WIDE = 1_000_000

_HEADING = ("model", "device", "batch_size", "seq_len")


def console(stream: TextIO) -> Console:
    """A console that writes what it is given: off a terminal without colour and as wide as the
    longest line needs."""
    wide = None if stream.isatty() else _WIDE
    return Console(file=stream, width=wide, markup=False, highlight=False, emoji=False)


def text(stream: TextIO, *parts: str | Table) -> str:
    """The parts as they suit the stream, lines without trailing blanks."""
    target = console(stream)
    for part in parts:
        if isinstance(part, Table):
            width = max(target.width, _least_width(part, target))
            target.size = ConsoleDimensions(width, target.height)
    with target.capture() as capture:
        for part in parts:
            target.print(part, soft_wrap=isinstance(part, str))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _least_width(table: Table, target: Console) -> int:
    """The width at which only columns that may fold have given way, as far as they may. A
    narrower terminal breaks the lines itself; no figure is cut."""
    folding = [column for column in table.columns if column.overflow == "fold"]
    for column in folding:
        column.max_width = column.min_width
    width = target.measure(table, options=target.options.update(width=_WIDE)).maximum
    for column in folding:
        column.max_width = None
    return width


def table(records: Sequence[Record], varying: Sequence[str]) -> Table:
    """The results, a row for each record, with a column for each of the `varying` spec fields.

    The source has a column where records differ in it, else it stands in the `heading`. On a
    narrow terminal the methods' labels are broken, no figure is.
    """
    shown = plain_table()
    for name in varying:
        shown.add_column(name.replace("_", " "), no_wrap=True)
    shown.add_column("method", overflow="fold", min_width=20)
    shown.add_column("status", no_wrap=True)
    mixed = len({record.source for record in records}) > 1
    if mixed:
        shown.add_column("source", no_wrap=True)
    divisor, unit = units.seconds_unit(one.time.step for one in records if one.time is not None)
    for name in (
        "trainable\nparameters",
        "trainable\nshare",
        "peak allo-\ncated, GiB",
        "peak re-\nserved, GiB",
        f"step\ntime, {unit}",
        "fits",
    ):
        shown.add_column(name, justify="right", no_wrap=True)
    for record in records:
        shown.add_row(
            *(_cell(record, name) for name in varying),
            one_line(record.label),
            Text(record.status, style=_STYLES.get(record.status, "red")),
            *([record.source] if mixed else []),
            *_figures(record, divisor),
        )
    return shown


def heading(records: Sequence[Record], varying: Sequence[str]) -> str:
    """What all records share, and where the figures come from."""
    fields = [name for name in _HEADING if name not in varying]
    shared = [f"{name.replace('_', ' ')} {_cell(records[0], name)}" for name in fields]
    sources = sorted({record.source for record in records})
    times = sorted({record.time.source for record in records if record.time is not None})
    memory = f"memory {' and '.join(sources)}"
    return ", ".join([*shared, memory, *([f"time {' and '.join(times)}"] if times else [])])


def runs(records: Sequence[Record]) -> list[str]:
    """A line for each run of many lengths: the step and the length of its peak, or its end."""
    lines = []
    for record in records:
        history = record.memory.history
        if history is None:
            continue
        where = f"step {history.peak_step} ({history.peak_batch} x {history.peak_length} tokens)"
        text = f"{record.label}: of {history.steps} steps the peak is allocated at {where}"
        if history.reserved_max_step is not None:
            text += f", the most reserved at step {history.reserved_max_step}"
        if record.status == "oom":
            text = f"{record.label}: {record.error}"
        lines.append(one_line(text))
    return lines


def cells(rows: Sequence[tuple[str, str, bool]]) -> Table:
    """The cells of a dry run: label, id, and whether there is a record of it."""
    shown = plain_table()
    for name in ("cell", "id", "stored"):
        shown.add_column(name)
    for label, id, is_stored in rows:
        shown.add_row(one_line(label), id, "yes" if is_stored else "no")
    return shown


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def _cell(record: Record, name: str) -> str:
    value = record.spec.get(name)
    return units.NONE if value is None else one_line(str(value))


def _figures(record: Record, divisor: float) -> tuple[str, ...]:
    trainable = share = step = fits = units.NONE
    if record.params is not None:
        trainable = units.count(record.params.trainable)
        share = units.percent(record.params.trainable, record.params.total)
    if record.time is not None:
        step = units.scaled(record.time.step, divisor)
    if record.fits is not None:
        fits = _room(record.fits.headroom)
    allocated = units.gib(record.memory.peak_allocated)
    reserved = units.gib(record.memory.peak_reserved)
    return trainable, share, allocated, reserved, step, fits


def _room(headroom: int) -> str:
    text = units.gib_unit(abs(headroom), 2)
    return f"yes, {text} left" if headroom >= 0 else f"no, {text} over"


class Watch:
    """Progress on stderr: a bar on a terminal, a line for each finished cell elsewhere."""

    def __init__(
        self,
        total: int,
        *,
        quiet: bool,
        command: str = "profiler.sweep",
        label: Callable[[RunSpec], str] = grid.label,
    ) -> None:
        self._total = total
        self._command = command
        self._label = label
        self._count = 0
        self._quiet = quiet
        self._console = console(sys.stderr)
        self._bar: Progress | None = None
        if not quiet and self._console.is_terminal and os.environ.get("TERM") != "dumb":
            self._bar = Progress(
                MofNCompleteColumn(),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis"),
                ),
                console=self._console,
                transient=True,
            )
            self._row = self._bar.add_task("", total=total)

    def __enter__(self) -> Watch:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, task: Task) -> None:
        if self._bar is not None:
            self._bar.update(self._row, description=one_line(self._label(task.spec)))

    def ended(self, outcome: Outcome) -> None:
        self._count += 1
        record, label = outcome.record, one_line(self._label(outcome.task.spec))
        status = record.status if record is not None else "wrong usage"
        if self._bar is not None:
            self._bar.advance(self._row)
        elif not self._quiet:
            stored = ", stored" if outcome.reused else ""
            self._line(f"[{self._count}/{self._total}] {label}: {status}{stored}")
        if record is not None and (not record.answered or record.status == "unsupported"):
            self.warn(f"{label}: {status}: {record.error}")

    def warn(self, text: str) -> None:
        """Shown also when quiet."""
        self._line(f"{self._command}: warning: {one_line(text.strip())}")

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
