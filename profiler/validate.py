"""`python -m profiler.validate [CASES...]`: predictions beside what others measured on real GPUs.

The table goes to stdout, progress and warnings to stderr; the page is `validation/index.html`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import profiler
from profiler import command, stdout
from profiler.errors import UsageError, unknown
from profiler.lines import one_line

if TYPE_CHECKING:
    from profiler.validation.compare import Entry
    from profiler.validation.result import GroupInfo, Validation

FORMATS = ("table", "json", "csv", "markdown")


_COMMAND = command.Command(
    "profiler.validate", interrupted="interrupted; the cells that were done are kept"
)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = command.Parser(
        prog="profiler.validate",
        usage="python -m profiler.validate [CASES...] [flags]",
        description="Simulate what others measured on real GPUs, and show predicted, measured and "
        "error. Without CASES: all that are shipped, or the rows alone with --rows.",
        epilog="Exit status: 0, every prediction is within its bound or the reason is known; "
        "1, one is not; 2, wrong usage; 130, interrupted.",
        allow_abbrev=False,
    )
    result.add_argument("cases", nargs="*", metavar="CASES", help="ids of cases or of groups")
    result.add_argument(
        "--filter", metavar="EXPR",
        help="only cases whose group and id have these words; not, and, or, parentheses",
    )  # fmt: skip
    result.add_argument(
        "--rows", type=Path, action="extend", nargs="+", default=[], metavar="FILE|DIR",
        help="records of measured runs (--device cuda or cpu) to hold predictions against",
    )  # fmt: skip
    result.add_argument(
        "--here",
        action="store_true",
        help="calibrate this CPU, then predict and measure steps on it (some ten minutes; let "
        "nothing else run); with --quick one small pair",
    )
    result.add_argument(
        "--device", metavar="CARD",
        help="the card that CUDA rows were measured on (default: by the name its driver gave)",
    )  # fmt: skip
    result.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder of the records, validation.json and the page (default: reports/validation; "
        "validation-part for some of the cases, validation-rows for rows alone)",
    )  # fmt: skip
    result.add_argument(
        "--workers", type=int, default=command.cores(), metavar="N",
        help="processes that simulate (default: the usable cores, here %(default)s)",
    )  # fmt: skip
    result.add_argument(
        "--format", choices=FORMATS, default="table", help="what stands on stdout (default: table)"
    )
    result.add_argument(
        "--fail-over", type=_share, metavar="SHARE",
        help="one bound for all memory in place of the claimed ones, such as 1%% or 0.01",
    )  # fmt: skip
    result.add_argument(
        "--scan", nargs=2, metavar=("GROUP", "FROM:TO:STEP"),
        help="find a group's fitted numbers again, trying these values, and print them",
    )  # fmt: skip
    for flag, text in (
        ("--quick", "one small case"),
        ("--dry-run", "list the cases, run none"),
        ("--overwrite", "simulate again what is stored"),
        ("--render", "run nothing: draw the page of the validation.json in --output again"),
        ("--quiet", "no progress on stderr"),
    ):
        result.add_argument(flag, action="store_true", help=text)
    result.add_argument("--version", action="version", version=f"profiler {profiler.__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2 or 130."""
    return _COMMAND.run(_validate, arguments)


def _validate(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.workers < 1:
        raise UsageError(f"--workers must be at least 1, not {options.workers}")
    if options.device and not options.rows:
        raise UsageError("--device says which card --rows were measured on; give --rows")
    options.output = options.output or Path("reports", _folder(options))
    if options.render:
        return _render(options.output)
    from profiler.noise import hush

    hush()
    if options.scan:
        return _scan(options)
    entries, groups = _entries(options)
    if options.dry_run:
        cells = [one_line(f"{one.group} {one.case} ({one.run})") for one in entries]
        stdout.to_stdout(lambda: print("\n".join(cells)))
        return 0
    from profiler.validation import listing, page
    from profiler.validation.running import run

    command = shlex.join(["python", "-m", "profiler.validate", *arguments])
    validation = run(
        entries,
        groups,
        options.output,
        workers=options.workers,
        overwrite=options.overwrite,
        quiet=options.quiet,
        command=command,
    )
    stdout.to_stdout(lambda: listing.write(validation, options.format, sys.stdout))
    path = page.build(validation, options.output)
    if options.format == "table":
        stdout.to_stdout(lambda: print(f"page: {path}"))
    elif not options.quiet:
        _COMMAND.say(f"page: {path}")
    for line in listing.wrong(validation.figures):
        _COMMAND.say(f"not within its bound: {line}")
    return 0 if validation.passed else 1


def _folder(options: argparse.Namespace) -> str:
    """Name of the default output folder: a part never takes the place of the whole."""
    if options.scan:
        return "validation-scan"
    if options.here and not (options.cases or options.rows):
        return "validation-here"
    if options.rows and not options.cases:
        return "validation-rows"
    part = options.cases or options.rows or options.filter or options.quick or options.fail_over
    return "validation-part" if part else "validation"


def _entries(options: argparse.Namespace) -> tuple[list[Entry], list[GroupInfo]]:
    """The simulations that were asked for, and where their measured figures come from."""
    from profiler import grid
    from profiler.validation import cases, compare, rows

    entries: list[Entry] = []
    groups: list[GroupInfo] = []
    known = cases.load()
    named = set(options.cases)
    ids = {group.id for group in known} | {case.id for group in known for case in group.cases}
    for name in options.cases:
        if name not in ids:
            raise unknown("case", name, ids, hint=" (--dry-run lists all)")
    fits = grid.filter_of(options.filter) if options.filter is not None else lambda label: True
    for group in known if named or not (options.rows or options.here) else ():
        quick = options.quick and not named
        chosen = [
            case
            for case in group.cases
            if (not named or named & {group.id, case.id})
            and (not quick or case.id in group.quick_cases)
            and fits(f"{group.id} {case.id}")
        ]
        runs = [run for run in group.runs if not quick or run.name in group.quick_runs]
        if chosen and runs:
            entries += compare.entries(group, chosen, runs)
            groups.append(compare.group_info(group, runs))
    if options.rows:
        records = rows.read(options.rows)
        measured = rows.entries(records, options.output, device=options.device)
        chosen_rows = [entry for entry in measured if fits(f"{entry.group} {entry.case}")]
        if chosen_rows:
            entries += chosen_rows
            groups.append(rows.group_info(records, options.rows))
    if options.here:
        found, about = _here(options)
        entries += found
        groups += about
    if not entries:
        raise UsageError(
            f"--filter {options.filter!r} leaves no case; --dry-run lists all of them"
            if options.filter
            else "no case is left; --dry-run lists all of them"
        )
    if options.fail_over is not None:
        entries = [compare.with_bound(entry, options.fail_over) for entry in entries]
    return entries, groups


def _here(options: argparse.Namespace) -> tuple[list[Entry], list[GroupInfo]]:
    """This machine's pairs, measured now, and what is to predict them."""
    from profiler import grid
    from profiler.validation import here

    def say(text: str) -> None:
        if not options.quiet:
            _COMMAND.say(text)

    fits = grid.filter_of(options.filter) if options.filter is not None else lambda label: True
    pairs = [one for one in here.pairs(quick=options.quick) if fits(f"{here.HERE} {one.name}")]
    if not pairs:
        raise UsageError(f"--filter {options.filter!r} leaves no pair of --here")
    if options.dry_run:
        return here.entries(pairs, [0.0] * len(pairs), options.output, quick=options.quick), []
    profile = here.calibrated(options.output, quick=options.quick, say=say)
    records = here.measured(pairs, options.output, say=say)
    seconds = [here.step_seconds(record) for record in records]
    found = here.entries(pairs, seconds, options.output, quick=options.quick)
    return found, [here.group_info(profile, records)]


def _scan(options: argparse.Namespace) -> int:
    from profiler.validation import cases, fitting

    known = {group.id: group for group in cases.load()}
    name, values = options.scan
    if name not in known:
        raise unknown("group", name, known)
    found = fitting.scan(
        known[name],
        _range(values),
        options.output,
        workers=options.workers,
        quiet=options.quiet,
    )
    stdout.to_stdout(lambda: print("\n".join(found)))
    return 0


def _render(folder: Path) -> int:
    from profiler.validation import page
    from profiler.validation.result import Validation

    file = folder / "validation.json"
    if not file.is_file():
        raise UsageError(f"no validation.json in {folder}; run the validation into it first")
    validation: Validation = Validation.from_json(file.read_bytes())
    path = page.build(validation, folder)
    stdout.to_stdout(lambda: print(path))
    return 0


def _share(text: str) -> float:
    """A share as `1%` or `0.01`."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a share such as 1% or 0.01, not {text!r}")
    return value


def _range(text: str) -> list[int]:
    try:
        start, stop, step = (int(part) for part in text.split(":"))
        values = list(range(start, stop + 1, step))
    except ValueError:
        values = []
    if not values:
        raise UsageError(f"--scan tries FROM:TO:STEP, such as 630:670:10, not {text!r}")
    return values


if __name__ == "__main__":
    command.start(main)
