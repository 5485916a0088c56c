"""`python -m profiler.report DIR`: the page of a folder of records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from profiler.errors import ProfilerError, UsageError
from profiler.lines import one_line

if TYPE_CHECKING:
    from profiler.record import Record


class _Parser(argparse.ArgumentParser):
    """A wrong flag is one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = _Parser(
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
    from profiler.report import build, newest
    from profiler.store import Store

    unreadable: list[str] = []
    store = Store(folder)
    records = store.all(unreadable) if (folder / "records").is_dir() else []
    if not records:
        reason = f" ({unreadable[0]})" if unreadable else ""
        raise UsageError(f"no records in {folder / 'records'}{reason}; run a sweep into {folder}")
    title = options.title or folder.resolve().name
    older: list[Record] = []
    if not options.all_versions:
        records, older = newest.split(records, store)
    path = build(
        records,
        options.output or folder,
        title=title,
        command=options.command,
        older=older,
        baseline=options.baseline,
    )
    return path, unreadable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0; 1 if records were left out; an error's exit code, its line on stderr."""
    try:
        path, unreadable = run(sys.argv[1:] if arguments is None else arguments)
    except ProfilerError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(path)
    for line in unreadable:
        _say(f"left out: {line}")
    return 1 if unreadable else 0


def _say(message: str) -> None:
    print(f"profiler.report: {one_line(message)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
