"""The command line's flags, made from RunSpec's fields: one name, one help text, one check."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import profiler
from profiler import studies
from profiler.command import Parser, cores
from profiler.errors import UsageError, unknown
from profiler.spec import RunSpec

FORMATS = ("table", "json", "csv")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line asks for. `fields` holds the RunSpec fields that were given."""

    study: str | None
    fields: dict[str, Any]
    output: Path | None
    format: str
    dry_run: bool
    filter: str | None
    retry_failed: bool
    overwrite: bool
    keep_traces: bool
    full_trace: bool
    ignore_memory: bool
    timeout: float
    workers: int
    executor: str
    address: str | None
    slurm_args: list[str]
    quick: bool
    quiet: bool
    python: Path | None


def parse(arguments: Sequence[str]) -> Request:
    """Read a command line.

    Raises:
        UsageError: it is wrong; one line that names what would be right.
        SystemExit: `--help` and `--version`, once they are answered.
    """
    parser = _parser()
    found, rest = parser.parse_known_args(arguments)
    for word in rest:
        if word.startswith("-"):
            raise _unknown_flag(word.partition("=")[0], parser)
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r} after the study {found.study!r}")
    if found.format not in FORMATS:
        raise unknown("value for --format:", found.format, FORMATS)
    if found.workers < 1:
        raise UsageError(f"--workers must be at least 1, not {found.workers}")
    if not found.timeout > 0:
        raise UsageError(f"--timeout must be more than 0 seconds, not {found.timeout}")
    values = vars(found)
    fields = {
        item.name: values.pop(item.name)
        for item in dataclasses.fields(RunSpec)
        if item.name in values
    }
    if "model_override" in fields:
        fields["model_override"] = tuple(fields["model_override"])
    return Request(fields=fields, **values)


class _Once(argparse.Action):
    """Stores a value; a second one is an error, not a silent last word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if hasattr(namespace, self.dest):
            parser.error(f"{option_string} is given twice and does not span a grid")
        setattr(namespace, self.dest, values)


def _parser() -> Parser:
    parser = Parser(
        prog="profiler.sweep",
        usage="python -m profiler.sweep [STUDY] [flags]",
        description="Profile a study's cells, or the grid that the flags span. "
        f"Without a study and without --model: the study {studies.DEFAULT}.",
        epilog="Exit status: 0, every cell has a result; 1, a cell failed; 2, wrong usage; "
        "130, interrupted. What is done is kept and is not run again.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "study",
        nargs="?",
        metavar="STUDY",
        help=f"{', '.join(studies.names())}, or the path of a .py file. Flags of the cell that "
        "are given with a study replace that field in each of its cells",
    )
    cell = parser.add_argument_group(
        "the cell", "A flag marked + may be repeated; repeated flags span the grid."
    )
    hints = get_type_hints(RunSpec)
    for item in dataclasses.fields(RunSpec):
        if item.metadata.get("flag", True):
            _add(cell, item, hints[item.name])
    _add_sweep_flags(parser.add_argument_group("the sweep"))
    return parser


def _add(group: Any, item: dataclasses.Field[Any], hint: Any) -> None:
    """The flag of one field. It is absent from the result unless it is given."""
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    kind = kinds[0] if hint != tuple[str, ...] else str
    many = item.metadata.get("grid") or hint == tuple[str, ...]
    help = ("+ " if many else "") + item.metadata["help"]
    if item.default not in (None, "", (), dataclasses.MISSING) and kind is not bool:
        help += f" (default: {item.default})"
    options: dict[str, Any] = {"help": help.replace("%", "%%"), "default": argparse.SUPPRESS}
    if kind is bool and hint is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        values = item.metadata.get("values")
        options["action"] = "append" if many else _Once
        options["metavar"] = "{" + ",".join(values) + "}" if values else _METAVARS[kind]
        options["type"] = _TYPES[kind]
    group.add_argument("--" + item.name.replace("_", "-"), **options)


def _add_sweep_flags(group: Any) -> None:
    group.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder of the records and the page (default: reports/STUDY, reports/sweep)",
    )  # fmt: skip
    group.add_argument(
        "--format", default="table", metavar="{" + ",".join(FORMATS) + "}",
        help="what stands on stdout (default: table)",
    )  # fmt: skip
    group.add_argument(
        "--filter", metavar="EXPR",
        help="only cells whose label has these words; not, and, or, parentheses",
    )  # fmt: skip
    group.add_argument(
        "--workers", type=_whole, default=cores(), metavar="N",
        help="processes that run simulated cells; 1: this one (default: the usable cores, here "
        "%(default)s). Measured cells run after them, one at a time",
    )  # fmt: skip
    group.add_argument(
        "--executor", default="local", metavar="{local,ray,slurm}",
        help="where cells run: processes of this machine, the machines of a Ray cluster, or jobs "
        "of a SLURM cluster. A cell measured on a GPU has one for itself (default: local)",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="the Ray cluster's (default: RAY_ADDRESS; without that Ray starts on this machine)",
    )  # fmt: skip
    group.add_argument(
        "--slurm-args", action="append", default=[], metavar="KEY=VALUE",
        help="submitit's parameters, such as slurm_partition=gpu or timeout_min=60; may be "
        "repeated. cluster=local tries it without SLURM",
    )  # fmt: skip
    group.add_argument(
        "--timeout", type=_number, default=3600.0, metavar="SECONDS",
        help="stop a measured cell that takes longer; inf: never (default: %(default)g)",
    )  # fmt: skip
    group.add_argument(
        "--python", type=Path, metavar="PATH",
        help="another environment's interpreter, or its folder: cells run with its libraries",
    )  # fmt: skip
    for flag, text in (
        ("--dry-run", "list the cells, run none"),
        ("--retry-failed", "run stored cells again that have no result"),
        ("--overwrite", "run stored cells again"),
        ("--keep-traces", "keep each run's trace beside its record, for profiler.export"),
        ("--full-trace", "run every layer of a simulated model; the figures are the same"),
        ("--ignore-memory", "run a measured cell although it will not fit in memory"),
        ("--quick", "the study's own small version"),
        ("--quiet", "no progress on stderr"),
    ):
        group.add_argument(flag, action="store_true", help=text)
    group.add_argument("--version", action="version", version=f"profiler {profiler.__version__}")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text == "true"


_TYPES = {str: str, int: _whole, float: _number, bool: _truth}
_METAVARS = {str: "VALUE", int: "N", float: "X", bool: "{true,false}"}


def _unknown_flag(flag: str, parser: argparse.ArgumentParser) -> UsageError:
    known = [name for action in parser._actions for name in action.option_strings if name[1] == "-"]
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
    tail = f"did you mean {near[0]}?" if near else "--help lists all"
    return UsageError(f"unknown flag {flag!r}; {tail}")
