"""Records of a project's `peft_profile` tests at two revisions, made by one set of libraries.

Each side's tests run where its files are: the base in a worktree of its own, which is gone again
afterwards. What a test checks is kept and held to no baseline, and none is written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from profiler.errors import ProfilerError, UsageError
from profiler.integrations.pytest_plugin import FOREIGN, HOME
from profiler.lines import one_line

_PREFIX = "git:"
#: pytest's exit statuses for "some tests failed" and "no tests were collected".
_FAILED, _NOTHING = 1, 5


@contextmanager
def checkout(name: str) -> Iterator[Path]:
    """The folder that `git:REVISION` or a path stands for, seen from the current one.

    Raises:
        UsageError: there is no such folder or revision.
    """
    if not name.startswith(_PREFIX):
        folder = Path(name)
        if not folder.is_dir():
            raise UsageError(f"{name} is neither a folder nor a revision as in git:origin/main")
        yield folder.resolve()
        return
    revision = name.removeprefix(_PREFIX)
    top = Path(_git("rev-parse", "--show-toplevel"))
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    home = Path(tempfile.mkdtemp(prefix="peft-profile-"))
    tree = home / top.name
    try:
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        within = tree / Path.cwd().resolve().relative_to(top.resolve())
        if not within.is_dir():
            raise UsageError(f"{revision} has no folder {within.relative_to(tree)}")
        yield within
    finally:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run(["git", "worktree", "prune"], capture_output=True, check=False)


def run_tests(folder: Path, records: Path, arguments: Sequence[str], name: str) -> list[str]:
    """Run pytest in a folder and keep the records that its tests check; lines to warn of.

    Args:
        arguments: pytest's.
        name: of the folder, for errors.

    Raises:
        UsageError: no test checks a record.
        ProfilerError: pytest itself ended with an error.
    """
    paths = [str(folder), str(folder / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--peft-records", str(records), "--peft-keep-only", *arguments),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            HOME: str(folder),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    last = one_line(said[-1]) if said else "it said nothing"
    if done.returncode not in (0, _FAILED, _NOTHING):
        raise ProfilerError(f"pytest ended with {done.returncode} in {name}: {last}")
    if not records.is_dir() or not any(records.glob("*.json")):
        raise UsageError(f"no test in {name} checks a record of peft_profile (pytest: {last})")
    warnings = []
    if done.returncode == _FAILED:
        warnings.append(f"{name}: some tests failed, what they checked is compared ({last})")
    foreign = records / FOREIGN
    if foreign.is_file():
        warnings.append(
            f"{name}: its tests imported files of another checkout, so both sides may have run the "
            f"same code: {one_line(foreign.read_text(errors='replace'))}"
        )
    return warnings


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise UsageError(f"git cannot be run ({error.strerror}); --base takes it") from None
    if done.returncode:
        reason = one_line((done.stderr.strip().splitlines() or [f"git {' '.join(arguments)}"])[-1])
        what = "no such revision" if "--verify" in arguments else reason
        raise UsageError(f"--base: {what} ({arguments[-1].removesuffix('^{commit}')})")
    return done.stdout.strip()
