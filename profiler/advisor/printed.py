"""Advice as a person reads it: a table, and the answer in a few sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from profiler import terminal
from profiler.advisor.advice import LENGTH_STEP, Advice, Find
from profiler.lines import one_line
from profiler.report import units
from profiler.report.palette import category_label


def table(advice: Sequence[Advice], find: Find) -> Table:
    """A row for each method, in the order given."""
    shown = terminal.plain_table()
    shown.add_column("method", overflow="fold", min_width=14)
    shown.add_column("fits", overflow="fold")
    shown.add_column(f"largest\n{find}", justify="right", no_wrap=True)
    shown.add_column("needs,\nGiB", justify="right", no_wrap=True)
    shown.add_column("free,\nGiB", justify="right", no_wrap=True)
    shown.add_column("tokens/s,\npredicted", justify="right", no_wrap=True)
    shown.add_column("most of the peak", overflow="fold")
    for one in advice:
        fits = one.status == "fits"
        number = one.batch_size if find == "batch" else one.seq_len
        free = (
            units.gib(one.capacity - one.needed)
            if fits and one.capacity is not None and one.needed is not None
            else units.NONE
        )
        speed = units.NONE
        if one.tokens_per_second is not None:
            speed = units.count(round(one.tokens_per_second))
        shown.add_row(
            one_line(one.method),
            _verdict(one),
            (f"{number}+" if one.capped else str(number)) if fits else units.NONE,
            units.gib(one.needed),
            free,
            speed,
            _holder(one),
        )
    return shown


def _verdict(one: Advice) -> str:
    if one.status == "fits":
        return f"with {one.change}" if one.change else "yes"
    return "no" if one.status == "too large" else one.status


def _holder(one: Advice) -> str:
    if one.holder is None:
        return units.NONE
    name, nbytes = one.holder
    return f"{category_label(name)} {units.gib_unit(nbytes)}"


def answer(advice: Sequence[Advice], find: Find) -> list[str]:
    """What to take from it, computed from the rows."""
    fitting = [one for one in advice if one.status == "fits"]
    unchanged = [one for one in fitting if not one.change]
    lines = []
    if not fitting:
        large = [one for one in advice if one.needed is not None and one.capacity is not None]
        if large:
            least = min(large, key=lambda one: one.needed or 0)
            over = (least.needed or 0) - (least.capacity or 0)
            lines.append(
                f"Nothing fits, whatever is changed. {least.method} comes closest: at "
                f"{_workload(least)} it needs {units.gib_unit(over, 2)} more than there is."
            )
        return [one_line(line) for line in lines]
    fastest = max(fitting, key=lambda one: one.tokens_per_second or 0.0)
    longest = max(fitting, key=lambda one: (one.batch_size * one.seq_len, one.tokens_per_second))
    if unchanged:
        lines.append(f"As it is, {units.count(len(unchanged))} of {len(advice)} fit.")
    else:
        lines.append(
            f"As it is, none of {len(advice)} fits. The cheapest change that does: {fastest.method}"
            f" with {fastest.change}."
        )
    lines.append(
        f"Fastest by prediction: {_named(fastest)}, {_workload(fastest)}, "
        f"{units.count(round(fastest.tokens_per_second or 0))} tokens/s."
    )
    if longest is not fastest:
        what = "batch" if find == "batch" else "length"
        lines.append(f"Largest {what}: {_named(longest)}, {_workload(longest)}.")
    if find == "length":
        lines.append(f"Lengths were searched in steps of {LENGTH_STEP} tokens.")
    return [one_line(line) for line in lines]


def _named(one: Advice) -> str:
    return f"{one.method} with {one.change}" if one.change else one.method


def _workload(one: Advice) -> str:
    return f"batch {one.batch_size} × {one.seq_len}"
