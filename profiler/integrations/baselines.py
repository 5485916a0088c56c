"""Baselines: records kept beside a test, and what is said of a record that is no longer equal.

Simulated bytes, FLOPs and counts are exact, so a baseline is held to the unit unless a tolerance is
given. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import ProfilerError, StoreError, UsageError

if TYPE_CHECKING:
    from profiler.analysis.difference import Difference
    from profiler.analysis.growth import Limit
    from profiler.record import Record

FOLDER = "peft_baselines"

#: A baseline's name: this much of the test's, and a hash of it where that is not all.
_LONGEST = 80
#: Groups of blocks that are named for each category.
_TOP = 5


class RegressionError(ProfilerError):
    """A record is not what its baseline says, or cannot be held against it."""


def safe_name(text: str) -> str:
    r"""A file's name for any text: nothing in it leads elsewhere, and no two are alike.

    >>> safe_name("test_memory"), safe_name("test_memory[../x]")
    ('test_memory', 'test_memory-x-ca339196')
    """
    words = re.sub(r"\W*[^\w.]\W*|\.\.+", "-", text, flags=re.ASCII)
    words = words.strip("-.")[:_LONGEST].rstrip("-.")
    if words == text:
        return words
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{words}-{digest}" if words else digest


def path_of(file: Path, test: str, name: str = "") -> Path:
    """Where the baseline of a test lies: `peft_baselines/<module>/<test>.json` beside its file.

    Args:
        file: the test's file.
        test: its name in the file, with class and parameters.
        name: of one of several records in one test.
    """
    function, bracket, parameters = test.partition("[")
    whole = function.replace("::", ".") + bracket + parameters
    if name:
        whole += f":{name}"
    return file.parent / FOLDER / safe_name(file.stem) / f"{safe_name(whole)}.json"


def read(path: Path) -> Record | None:
    """The record of a baseline, None if there is no file.

    Raises:
        StoreError: it cannot be read, or is no record.
    """
    from profiler.record import Record

    try:
        return Record.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from None


def write(path: Path, record: Record) -> None:
    """Write a baseline in place of an earlier one, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    from profiler.files import replace_file

    text = json.dumps(kept(record).to_dict(), ensure_ascii=False, indent=1) + "\n"
    try:
        replace_file(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None


def kept(record: Record) -> Record:
    """A record without what no comparison reads, and what of its environment changes no figure (it
    would make every machine's baseline another file)."""
    result = record.model_copy(deep=True)
    result.memory.timeline = None
    if result.time is not None:
        result.time.modules = {}
    names = (*_decisive(record), "fingerprint")
    result.environment = {
        name: value for name, value in record.environment.items() if name in names
    }
    return result


def _decisive(record: Record) -> tuple[str, ...]:
    from profiler.environment import decisive

    return decisive(str(record.spec.get("device", "")))


def across(baseline: Record, record: Record) -> str:
    """What can change a figure and is otherwise in the baseline's environment, such as
    "transformers 4.48.1 → 5.23.0"; "" if nothing is."""
    names = dict.fromkeys((*_decisive(record), *_decisive(baseline)))
    words = []
    for name in names:
        before, after = baseline.environment.get(name), record.environment.get(name)
        if before != after:
            label = "the profiler's sources" if name == "profiler_sources" else name
            words.append(f"{label} {_shown(before)} → {_shown(after)}")
    return ", ".join(words)


def _shown(value: Any) -> str:
    from profiler.lines import one_line

    return "none" if value is None else one_line(str(value))[:60]


def tolerance_of(text: str | None) -> Limit | None:
    """How far a figure may be from its baseline's, None for not at all.

    Raises:
        UsageError: neither a share (0.1%) nor a size (64MiB).
    """
    from profiler.analysis.growth import Limit

    if text is None:
        return None
    try:
        return Limit.parse(str(text))
    except UsageError:
        raise UsageError(
            f"tolerance is a share ('0.1%') or a size ('64MiB'), not {text!r}"
        ) from None


def exceeding(found: Difference, limit: Limit | None) -> list[str]:
    """The figures that are not the baseline's. Times are not among them; a tolerance that is a
    size holds for bytes, and the counts stay exact."""
    from profiler.analysis.difference import FIGURES

    result = []
    for name, change in found.figures.items():
        if name == "step_time" or change.before == change.after:
            continue
        before, after = change.before, change.after
        exact = limit is None or (limit.share is None and FIGURES[name][0] != "bytes")
        if not exact and limit is not None and before is not None and after is not None:
            if limit.share is not None:
                near = abs(after - before) <= limit.share * abs(before)
            else:
                near = abs(after - before) <= (limit.amount or 0)
            if near:
                continue
        result.append(name)
    return result


def judge(baseline: Record, record: Record, limit: Limit | None, where: str) -> str:
    """Why a record is not its baseline, in words; "" if it is.

    Args:
        where: what the baseline is called.
    """
    from profiler import diff_text
    from profiler.analysis.difference import difference

    before, after = kept(baseline), kept(record)
    found = difference(before, after)
    names = exceeding(found, limit)
    if found.mixed:
        return f"{where} is {before.source} and this run is {after.source}: they are not compared"
    if not names and before.status == after.status:
        return ""
    comparison = diff_text.Comparison(f"{where} (the baseline)", "this run", [found], [], [])
    report = diff_text.report(comparison, _TOP)
    unlike = [name for name, one in found.figures.items() if one.before != one.after]
    rows = dict(zip(unlike, report.told[0].figures, strict=True))
    heads = [f"{rows[name][0]} {rows[name][3]}" for name in names]
    if before.status != after.status:
        heads.insert(0, f"was {before.status} and is {after.status}")
    return f"{', '.join(heads)}\n{diff_text.text(report, io.StringIO())}".rstrip()
