"""`python -m profiler.report DIR`: the page of a folder of records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import command, stdout
from profiler.errors import UsageError, unknown

if TYPE_CHECKING:
    from profiler.record import Record


_COMMAND = command.Command("profiler.report")


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = command.Parser(
        prog="python -m profiler.report",
        description="Write index.html from the records of a study (DIR/records/*.json) "
        "and print its path.",
    )
    result.add_argument("folder", metavar="DIR", type=Path, help="folder with records/*.json")
    result.add_argument(
        "--output", metavar="DIR", type=Path, help="folder of the page (default: the first DIR)"
    )
    result.add_argument("--title", help="heading of the page (default: the folder's name)")
    result.add_argument(
        "--command", default="", help="the command that made the records, shown in the page"
    )
    result.add_argument(
        "--baseline",
        metavar="METHOD",
        default="",
        help="the method that others are compared with, as typed or a preset (default: lora)",
    )
    result.add_argument(
        "--scores",
        metavar="FILE",
        type=Path,
        help="CSV file with the columns method and score (and model, latency): scores of the "
        "methods, instead of the published ones",
    )
    result.add_argument(
        "--figures",
        metavar="FORMATS",
        default="",
        help="also write the static figures as files, DIR/figures: svg, png, pdf, with commas",
    )
    result.add_argument(
        "--index",
        action="store_true",
        help="DIR holds folders of pages: write the index over them, and nothing else",
    )
    result.add_argument(
        "--all-versions",
        action="store_true",
        help="show every record of a cell (default: the newest; the others are only counted)",
    )
    return result


def run(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """Build the page the arguments ask for; its path, and a line for each unreadable record.

    Raises:
        UsageError: wrong arguments, or a folder without records.
        StoreError: the page cannot be written.
    """
    options = parser().parse_args(arguments)
    folder: Path = options.folder
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one with records/*.json")
    from profiler.report import about, build, newest, reading, saved_figures, scores
    from profiler.report.baseline import is_of
    from profiler.store import Store

    formats = [one.strip().lower() for one in options.figures.split(",") if one.strip()]
    for one in formats:
        if one not in saved_figures.FORMATS:
            raise unknown("format of --figures", one, saved_figures.FORMATS)
    if options.index:
        from profiler.report import index

        return index.build(folder), []
    given = scores.read(options.scores) if options.scores else None

    unreadable: list[str] = []
    store = Store(folder)
    count = store.count()
    whole = count <= reading.WHOLE
    if not whole and sys.stderr.isatty():
        _COMMAND.say(f"{count:,} records, which takes a while")
    records = store.all(unreadable, whole=whole) if (folder / "records").is_dir() else []
    if not records:
        reason = f" ({unreadable[0]})" if unreadable else ""
        raise UsageError(f"no records in {folder / 'records'}{reason}; run a sweep into {folder}")
    known = about.read(folder)
    title = options.title or known.title or folder.resolve().name
    baseline = options.baseline
    if not baseline and any(is_of(record, known.baseline) for record in records):
        baseline = known.baseline
    older: list[Record] = []
    if not options.all_versions:
        records, older = newest.split(records, store)
    if not whole:
        records = reading.with_details(records, store)
    path = build(
        records,
        options.output or folder,
        title=title,
        command=options.command or known.command,
        older=older,
        baseline=baseline,
        scores=given,
        figures=formats,
    )
    return path, unreadable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0; 1 if records were left out; an error's exit code, its line on stderr."""
    return _COMMAND.run(_main, arguments)


def _main(arguments: Sequence[str]) -> int:
    path, unreadable = run(arguments)
    stdout.to_stdout(lambda: print(path))
    for line in unreadable:
        _COMMAND.say(f"left out: {line}")
    return 1 if unreadable else 0


if __name__ == "__main__":
    command.start(main)
