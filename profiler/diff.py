"""`python -m profiler.diff A B`: what makes two records, or two folders of records, differ.

The differences go to stdout, what was left out to stderr. Nothing is run: all of it is read from
the stored records.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import profiler
from profiler import command, stdout
from profiler.errors import StoreError, UsageError

if TYPE_CHECKING:
    from profiler.record import Record

FORMATS = ("text", "markdown", "json", "html")


@dataclass(frozen=True, slots=True)
class Side:
    """Records to compare, one of each cell, and the name they go by."""

    name: str
    records: list[Record]


_COMMAND = command.Command("profiler.diff")


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = command.Parser(
        prog="profiler.diff",
        usage="python -m profiler.diff A B [flags], or python -m profiler.diff DIR [flags], or\n"
        "       python -m profiler.diff --base git:REVISION [flags] [-- PYTEST ARGUMENTS]",
        description="Say which categories, modules and ops make two records differ. A and B are "
        "records (JSON files) or folders of records, whose cells are paired. DIR holds the "
        "records of two environments (two versions of a library): the older is A. With --base, A "
        "and B are what a project's peft_profile tests check at two revisions, simulated with the "
        "libraries that are installed.",
        epilog="Exit status: 0, compared; 1, something fails by --fail-over, or a record cannot "
        "be read; 2, wrong usage; 130, interrupted.",
        allow_abbrev=False,
    )
    result.add_argument("paths", nargs="*", type=Path, metavar="A B", help=argparse.SUPPRESS)
    result.add_argument(
        "--base", metavar="git:REVISION",
        help="run the tests of this revision and of --head, and compare what they check",
    )  # fmt: skip
    result.add_argument(
        "--head", metavar="DIR|git:REVISION",
        help="with --base: what is held against it (default: the current folder, as it is)",
    )  # fmt: skip
    result.add_argument(
        "--between", nargs=2, metavar=("OLD", "NEW"),
        help="with one DIR: the two environments, each by its fingerprint or by a version "
        "(transformers=4.48.1)",
    )  # fmt: skip
    result.add_argument(
        "--format", choices=FORMATS, default="text",
        help="what stands on stdout (default: text); html: the path of a page, see --output",
    )  # fmt: skip
    result.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder of the page of --format html (default: comparison)",
    )  # fmt: skip
    result.add_argument(
        "--fail-over", metavar="LIMIT",
        help="exit with 1 if a paired cell grew by more than a share (0.5%%) or a size (64MiB), "
        "is gone, or ends worse; less is never a failure",
    )  # fmt: skip
    result.add_argument(
        "--metric", action="append", metavar="NAME",
        help="what --fail-over holds to the limit; may be repeated (default: peak_allocated, "
        "peak_reserved and after_step_allocated; also load_peak, parameters, trainable, flops, "
        "step_time)",
    )  # fmt: skip
    result.add_argument(
        "--top", type=int, default=5, metavar="N",
        help="cells told in full, and groups of blocks named for each category (default: 5)",
    )  # fmt: skip
    result.add_argument("--version", action="version", version=f"profiler {profiler.__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2 or 130."""
    return _COMMAND.run(_diff, arguments)


def _diff(arguments: Sequence[str]) -> int:
    arguments, tests = _split(arguments)
    options = parser().parse_args(arguments)
    if options.base is None and (options.head is not None or tests):
        raise UsageError("--head and what follows -- are for --base git:REVISION; give that")
    if options.base is not None and (options.paths or options.between):
        raise UsageError("--base compares two revisions; give it without records")
    if options.base is None and not options.paths:
        raise UsageError("name two records or folders, or a revision: --base git:origin/main")
    if options.top < 1:
        raise UsageError(f"--top must be at least 1, not {options.top}")
    if options.output is not None and options.format != "html":
        raise UsageError("--output is the folder of the page that --format html writes")
    if options.metric and options.fail_over is None:
        raise UsageError("--metric says what --fail-over holds to its limit; give --fail-over")
    from profiler import diff_text
    from profiler.analysis import growth
    from profiler.analysis.counterparts import counterparts
    from profiler.analysis.difference import FIGURES, difference
    from profiler.errors import unknown

    metrics = tuple(dict.fromkeys(options.metric or growth.METRICS))
    for name in metrics:
        if name not in FIGURES:
            raise unknown("metric", name, FIGURES)
    limit = growth.Limit.parse(options.fail_over) if options.fail_over is not None else None
    if limit is not None:
        growth.check_metrics(limit, metrics)
    unreadable: list[str] = []
    if options.base is not None:
        before, after = _revisions(options.base, options.head or ".", tests)
    else:
        before, after = _sides(options.paths, options.between, unreadable)
    found = counterparts(before.records, after.records)
    if not found.pairs:
        raise UsageError(
            f"no cell of {before.name} has a counterpart in {after.name}: "
            f"{len(before.records)} and {len(after.records)} cells, "
            f"the first {before.records[0].id} and {after.records[0].id}"
        )
    differences = [difference(*pair) for pair in found.pairs]
    failures = (
        growth.failures(differences, found.before, limit, metrics) if limit is not None else []
    )
    comparison = diff_text.Comparison(
        before.name, after.name, differences, found.before, found.after, limit, failures
    )
    if options.format == "html":
        from profiler import diff_page

        command_line = shlex.join(["python", "-m", "profiler.diff", *arguments])
        output = options.output or Path("comparison")
        page = diff_page.build(comparison, options.top, output, command=command_line)
        shown = f"{page}\n"
    elif options.format == "json":
        shown = json.dumps(diff_text.data(comparison), indent=1) + "\n"
    elif options.format == "markdown":
        shown = diff_text.markdown(diff_text.report(comparison, options.top))
    else:
        shown = diff_text.text(diff_text.report(comparison, options.top), sys.stdout)
    stdout.to_stdout(lambda: print(shown, end=""))
    for line in unreadable:
        _COMMAND.say(f"left out: {line}")
    return 1 if failures or unreadable else 0


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The command's own arguments, and those behind `--`, which are pytest's."""
    if "--" not in arguments:
        return arguments, []
    place = list(arguments).index("--")
    return arguments[:place], arguments[place + 1 :]


# --- the two sides ------------------------------------------------------------------------------


def _sides(
    paths: Sequence[Path], between: Sequence[str] | None, problems: list[str]
) -> tuple[Side, Side]:
    """What is compared with what.

    Raises:
        UsageError: not two sides are named, or one holds no record.
    """
    if len(paths) > 2:
        raise UsageError(f"two records or folders are compared, not {len(paths)}")
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give a record or a folder of records")
    if len(paths) == 2:
        if between:
            raise UsageError("--between names the two environments of one DIR; give one DIR")
        first, second = (_read(path, problems) for path in paths)
        return (
            Side(str(paths[0]), _newest(first, paths[0])),
            Side(str(paths[1]), _newest(second, paths[1])),
        )
    if not paths[0].is_dir():
        raise UsageError(f"{paths[0]} is one record; give a second one to compare it with")
    return _environments(paths[0], between, problems)


def _revisions(base: str, head: str, tests: Sequence[str]) -> tuple[Side, Side]:
    """What the tests of two revisions check.

    Raises:
        UsageError: a revision or its tests are not there.
    """
    import tempfile

    from profiler import checkouts
    from profiler.store import read_folder

    sides = []
    with tempfile.TemporaryDirectory(prefix="peft-records-") as kept:
        for name, place in ((base, "base"), (head, "head")):
            records = Path(kept) / place
            with checkouts.checkout(name) as folder:
                for line in checkouts.run_tests(folder, records, tests, name):
                    _COMMAND.say(line)
            sides.append(Side(name, read_folder(records)))
    return sides[0], sides[1]


def _read(path: Path, problems: list[str]) -> list[Record]:
    """The records of a file (one, or an array as `profiler.sweep --format json` prints it) or of
    a folder (a study's, or the one that its records lie in)."""
    from profiler.record import Record
    from profiler.store import read_folder

    if path.is_dir():
        folder = path / "records" if (path / "records").is_dir() else path
        records = read_folder(folder, problems)
        if not records:
            reason = f" ({problems[0]})" if problems else ""
            raise UsageError(f"no records in {folder}{reason}")
        return records
    try:
        data = json.loads(path.read_bytes())
        records = [Record.from_dict(one) for one in (data if isinstance(data, list) else [data])]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError, StoreError) as error:
        reason = str(error).removeprefix("not a record: ")
        raise UsageError(f"{path} is not a record: {reason}") from None
    if not records:
        raise UsageError(f"{path} holds no record")
    return records


def _newest(records: list[Record], path: Path) -> list[Record]:
    from profiler.report import newest
    from profiler.store import Store

    kept, older = newest.split(records, Store(_study(path)))
    if older:
        _COMMAND.say(
            f"{path}: {len(older)} older record{'s' if len(older) > 1 else ''} of the same cells "
            "left out; one DIR alone compares its environments"
        )
    return kept


def _study(path: Path) -> Path:
    """The folder whose `records` hold what `path` names."""
    return path.parent if path.name == "records" else path


def _environments(
    path: Path, between: Sequence[str] | None, problems: list[str]
) -> tuple[Side, Side]:
    """The two environments of one folder, the older first."""
    from profiler.report import newest
    from profiler.store import Store

    records = _read(path, problems)
    store = Store(_study(path))
    if between:
        sides = []
        for text in between:
            chosen = [record for record in records if _is_of(record, text)]
            if not chosen:
                raise UsageError(f"--between: no record in {path} is of {text!r}; {_held(records)}")
            sides.append(Side(f"{path} ({text})", newest.split(chosen, store)[0]))
        return sides[0], sides[1]
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[_versions(record)].append(record)
    if len(groups) == 1:  # the same libraries on two machines, say
        groups = defaultdict(list)
        for record in records:
            groups[(str(record.environment.get("fingerprint")),)].append(record)
    if len(groups) != 2:
        raise UsageError(
            f"{path} holds records of {len(groups)} environment{'s' if len(groups) > 1 else ''}; "
            f"two are compared: name them by --between OLD NEW, or give A and B; {_held(records)}"
        )
    first, second = sorted(
        groups.values(), key=lambda group: max(newest.age(record, store) for record in group)
    )
    return (
        Side(f"{path} ({_apart(first[0], second[0])})", newest.split(first, store)[0]),
        Side(f"{path} ({_apart(second[0], first[0])})", newest.split(second, store)[0]),
    )


def _versions(record: Record) -> tuple[str, ...]:
    from profiler.environment import LIBRARIES

    names = ("profiler", "profiler_sources", *LIBRARIES)
    return tuple(str(record.environment.get(name)) for name in names)


def _apart(record: Record, other: Record) -> str:
    """What tells an environment from another: the versions that differ, else its fingerprint."""
    from profiler.environment import LIBRARIES

    ours, theirs = record.environment, other.environment
    names = ["profiler", *LIBRARIES]
    words = [f"{name} {ours.get(name)}" for name in names if ours.get(name) != theirs.get(name)]
    return ", ".join(words) or str(ours.get("fingerprint"))


def _is_of(record: Record, text: str) -> bool:
    name, found, value = text.partition("=")
    if found:
        return str(record.environment.get(name)) == value
    return record.environment.get("fingerprint") == text


def _held(records: Sequence[Record]) -> str:
    found: dict[str, str] = {}
    for record in records:
        known = record.environment
        words = [f"{name} {known[name]}" for name in ("transformers", "peft") if known.get(name)]
        found[str(known.get("fingerprint"))] = ", ".join(words)
    shown = [f"{name} ({words})" for name, words in list(found.items())[:6]]
    return "held: " + ", ".join(shown) + (", ..." if len(found) > 6 else "")


if __name__ == "__main__":
    command.start(main)
