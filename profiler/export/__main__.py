"""`python -m profiler.export PATH... --to FORMAT`: stored records and traces for other tools.

Text goes to stdout unless `--output` names a file or a folder, and nothing is overwritten without
being told. What makes a format is imported when it is asked for, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import command, stdout
from profiler.errors import StoreError, UsageError, unknown
from profiler.export.formats import FLAT, FORMATS, PRINTED, Format
from profiler.files import replace_file

if TYPE_CHECKING:
    from profiler.record import Record


@dataclass(frozen=True, slots=True)
class Target:
    """What --output names."""

    path: Path
    folder: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A record and the file it is in."""

    record: Record
    path: Path


def _path(text: str) -> Target:
    path = Path(text)
    return Target(path, folder=path.is_dir() or text.endswith(("/", os.sep)))


_COMMAND = command.Command("profiler.export")


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    formats = "; ".join(f"{name}: {format.help}" for name, format in FORMATS.items())
    result = command.Parser(
        prog="profiler.export",
        usage="python -m profiler.export PATH... --to FORMAT [flags]",
        description="Write stored records, or the traces that sweep --keep-traces keeps beside "
        "them, in another tool's format.",
        epilog="Exit status: 0, all is written; 1, something was left out; 2, wrong usage.",
        allow_abbrev=False,
    )
    result.add_argument(
        "paths", nargs="+", metavar="PATH", type=Path, help="a record's file, or a study's folder"
    )
    result.add_argument("--to", required=True, metavar="FORMAT", help=formats)
    result.add_argument(
        "--output", metavar="FILE|DIR", type=_path,
        help="where to write (default: stdout); a folder (there already, or a name that ends in /) "
        "takes a file for each trace. A name that ends in .gz is compressed",
    )  # fmt: skip
    result.add_argument(
        "--table", metavar="TABLE",
        help=f"of records: {', '.join(FLAT)}; to latex and markdown also "
        f"{', '.join(name for name in PRINTED if name not in FLAT)} (default: cells)",
    )  # fmt: skip
    result.add_argument(
        "--columns", metavar="NAMES",
        help="only these columns, by name or pattern (*), with commas between: "
        "spec.method.label,memory.at_peak.*",
    )  # fmt: skip
    result.add_argument("--overwrite", action="store_true", help="replace files that are there")
    result.add_argument(
        "--all-versions", action="store_true",
        help="every record of a cell in a folder (default: the newest)",
    )  # fmt: skip
    return result


def run(arguments: Sequence[str]) -> list[str]:
    """Do what the arguments ask for; a line for each record or trace that was left out.

    Raises:
        UsageError: wrong arguments, or nothing to write.
        StoreError: something cannot be read or written.
    """
    options = parser().parse_args(arguments)
    if options.to not in FORMATS:
        raise unknown("format", options.to, FORMATS)
    format = FORMATS[options.to]
    _check(options, format)
    left_out: list[str] = []
    stored = [
        one
        for path in dict.fromkeys(options.paths)
        for one in _load(path, left_out, all_versions=options.all_versions)
    ]
    if format.of_traces:
        _write_traces(stored, options, format, left_out)
    else:
        _write_records([one.record for one in stored], options, format)
    return left_out


def _check(options: argparse.Namespace, format: Format) -> None:
    """What can be said before anything is read."""
    if format.of_traces:
        for flag in ("table", "columns"):
            if getattr(options, flag) is not None:
                raise UsageError(f"--{flag} is for tables of records; {options.to} shows a trace")
    elif options.table is not None and options.table not in format.tables:
        if options.table in PRINTED:
            raise UsageError(
                f"--table {options.table} is for latex and markdown; in {options.to} its figures "
                "are columns of cells"
            )
        raise unknown("table", options.table, format.tables)
    if options.columns is not None and options.table in set(PRINTED) - set(FLAT):
        raise UsageError(f"--columns chooses from {', '.join(FLAT)}, not from {options.table}")
    output: Target | None = options.output
    if output is None and format.binary:
        raise UsageError(f"{options.to} is binary: name a file with --output")
    if output is not None and not format.of_traces:
        if output.folder:
            raise UsageError(f"{output.path} is a folder; --output names a file for {options.to}")
        _check_free(output.path, options)


def _check_free(path: Path, options: argparse.Namespace) -> None:
    if not options.overwrite and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path} is already there; --overwrite replaces it")


def _load(path: Path, left_out: list[str], *, all_versions: bool) -> list[Stored]:
    """The records of a file or folder."""
    from profiler.record import Record
    from profiler.report import newest
    from profiler.store import Store

    if path.is_dir():
        store = Store(path.parent if path.name == "records" else path)
        unreadable: list[str] = []
        records = store.all(unreadable) if store.records.is_dir() else []
        if not records:
            reason = f" ({unreadable[0]})" if unreadable else ""
            raise UsageError(f"no records in {store.records}{reason}; name a sweep's folder")
        left_out += unreadable
        if not all_versions:
            records, _ = newest.split(records, store)
        return [
            Stored(one, store.path(one.id, str(one.environment.get("fingerprint", ""))))
            for one in records
        ]
    if not path.exists():
        raise UsageError(f"{path} is not there; name a record's file or a sweep's folder")
    try:
        return [Stored(Record.from_json(path.read_bytes()), path)]
    except StoreError as error:
        raise UsageError(f"{path}: {error}") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None


def _write_records(records: list[Record], options: argparse.Namespace, format: Format) -> None:
    columns = [name.strip() for name in (options.columns or "").split(",") if name.strip()]
    module = importlib.import_module(f"profiler.export.{format.module}")
    content = module.render(records, options.table or "cells", columns)
    _put(content, options.output.path if options.output is not None else None)


def _write_traces(
    stored: list[Stored], options: argparse.Namespace, format: Format, left_out: list[str]
) -> None:
    from profiler import trace_file

    hint = f"{options.to} needs it: run the sweep with --keep-traces"
    found: list[Stored] = []
    for one in stored:
        if trace_file.beside(one.path).is_file():
            found.append(one)
        elif one.record.memory.peak_allocated is None:
            left_out.append(f"{one.path}: the cell is {one.record.status}, it has no trace")
        else:
            left_out.append(f"{one.path}: no trace lies beside it; {hint}")
    if not found:
        if len(stored) == 1:
            raise UsageError(left_out[-1])
        raise UsageError(f"no trace lies beside any of the {len(stored)} records; {hint}")
    output: Target | None = options.output
    if len(found) > 1 and output is None:
        raise UsageError(
            f"{len(found)} traces, and {options.to} is a file for each: name a folder with --output"
        )
    targets = [output.path if output is not None else None]
    if output is not None and (len(found) > 1 or output.folder):
        if output.path.exists() and not output.folder:
            raise UsageError(f"{output.path} is a file; {len(found)} traces need a folder")
        names = [one.path.name.removesuffix(".json") + format.suffix for one in found]
        if len(set(names)) < len(names):
            raise UsageError("two records have files of one name; export them one at a time")
        targets = [output.path / name for name in names]
    for target in targets:
        if target is not None:
            _check_free(target, options)
    module = importlib.import_module(f"profiler.export.{format.module}")
    for one, target in zip(found, targets, strict=True):
        try:
            trace = trace_file.read(trace_file.beside(one.path))
        except StoreError as error:
            if len(found) == 1:
                raise
            left_out.append(str(error))
        else:
            _put(module.render(one.record, trace), target)


def _put(content: str | bytes, path: Path | None) -> None:
    if path is None:
        assert isinstance(content, str)
        stdout.to_stdout(lambda: print(content, end="" if content.endswith("\n") else "\n"))
        return
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    try:
        replace_file(path, data)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None
    stdout.to_stdout(lambda: print(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0; 1 if something was left out; an error's exit code, its line on stderr."""
    return _COMMAND.run(_main, arguments)


def _main(arguments: Sequence[str]) -> int:
    left_out = run(arguments)
    for line in left_out:
        _COMMAND.say(f"left out: {line}")
    return 1 if left_out else 0


if __name__ == "__main__":
    command.start(main)
