"""A sweep by another environment's interpreter: its libraries, this package's code.

So two versions of a library are compared cell by cell: the store keeps their records apart by the
environment's fingerprint, which is the other interpreter's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import profiler
from profiler.errors import UsageError
from profiler.lines import one_line

#: Tells the other process how it was named, for the command that its page shows.
NAMED = "PEFT_PROFILER_PYTHON"

#: What the package imports, and what pip calls it where that is another name.
_NEEDS = {
    "accelerate": "", "altair": "", "bitsandbytes": "", "jinja2": "", "matplotlib": "",
    "pandas": "", "peft": "", "psutil": "", "pydantic": "", "pynvml": "nvidia-ml-py", "rich": "",
    "seaborn": "", "torch": "", "transformers": "", "vl_convert": "vl-convert-python",
}  # fmt: skip
#: The oldest that the package runs with (pyproject.toml).
_OLDEST = {"torch": (2, 13), "transformers": (4, 48), "peft": (0, 13)}
_PYTHON = (3, 11)

_ASK = """
import importlib.metadata as metadata, importlib.util as util, json, sys
names = json.loads(sys.argv[1])
def version(name):
    try:
        return metadata.version(name)
    except Exception:
        return ""
print(json.dumps({
    "python": sys.version_info[:2],
    "missing": [name for name in names if util.find_spec(name) is None],
    "versions": {name: version(name) for name in json.loads(sys.argv[2])},
}))
"""


def run(python: Path, arguments: Sequence[str]) -> int:
    """Run `profiler.sweep` with these arguments in another interpreter; its exit status.

    Args:
        python: the interpreter, or the folder of its virtual environment.

    Raises:
        UsageError: it is none, is too old, or lacks what is needed.
    """
    interpreter = _checked(python)
    home = Path(tempfile.mkdtemp(prefix="peft-profiler-"))
    try:
        _lay_out(home)
        process = subprocess.Popen(
            [str(interpreter), "-m", "profiler.sweep", *arguments],
            env={**os.environ, "PYTHONPATH": str(home), NAMED: str(python)},
        )
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other answers Ctrl-C
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def without(arguments: Sequence[str]) -> list[str]:
    """A command line without its `--python`."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--python":
            next(words, None)
        elif not word.startswith("--python="):
            kept.append(word)
    return kept


def _lay_out(home: Path) -> None:
    """Links to this package and its studies, and to nothing else: what lies beside them here would
    hide the other environment's libraries."""
    package = Path(profiler.__file__).parent
    (home / "profiler").symlink_to(package, target_is_directory=True)
    studies = package.parent / "experiments"
    if studies.is_dir():
        (home / "experiments").symlink_to(studies, target_is_directory=True)


def _checked(python: Path) -> Path:
    interpreter = python
    if python.is_dir():
        inside = (python / "bin" / "python", python / "Scripts" / "python.exe")
        found = [one for one in inside if one.exists()]
        if not found:
            raise UsageError(f"--python {python} is a folder without bin/python in it")
        interpreter = found[0]
    if not interpreter.exists() and shutil.which(str(interpreter)) is None:
        raise UsageError(f"--python {python}: there is no such interpreter or environment")
    asked = [json.dumps(list(_NEEDS)), json.dumps(list(_OLDEST))]
    try:
        done = subprocess.run(
            [str(interpreter), "-c", _ASK, *asked],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=120,
        )
        found_there = json.loads(done.stdout)
        version, missing = tuple(found_there["python"]), found_there["missing"]
        versions = found_there["versions"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        reason = one_line(str(error))[:120]
        raise UsageError(f"--python {python} does not answer as Python does ({reason})") from None
    if version < _PYTHON:
        told = ".".join(map(str, version))
        raise UsageError(f"--python {python} is Python {told}; {_dotted(_PYTHON)} is needed")
    if missing:
        names = [_NEEDS[name] or name for name in missing]
        raise UsageError(
            f"--python {python} lacks {', '.join(names)}; install it there: "
            f"{interpreter} -m pip install {' '.join(names)}"
        )
    for name, oldest in _OLDEST.items():
        if _parts(versions[name]) < oldest:
            raise UsageError(
                f"--python {python} has {name} {versions[name] or 'of no known version'}; "
                f"{_dotted(oldest)} is needed"
            )
    return interpreter


def _parts(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
