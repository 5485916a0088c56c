"""Which source line asked for an allocation: the innermost frame that is the subject's own."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import CodeType

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep  # noqa: PTH120
_PROFILER = str(Path(__file__).parent.parent) + os.sep
_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

#: Parts of the profiler that are what is profiled, not what watches it.
_SUBJECT = tuple(
    os.path.join(_PROFILER, "subject", name) + os.sep  # noqa: PTH118
    for name in ("methods", "optimizers", "workloads")
)
#: Parts of torch that say what an optimizer step does.
_OPTIMIZER = (
    os.path.join(_TORCH, "optim") + os.sep,  # noqa: PTH118
    os.path.join(_TORCH, "nn", "utils", "clip_grad.py"),  # noqa: PTH118
)


# Whether a file's frames are named; plain numbers, as they are compared a hundred thousand times.
_NEVER, _ALWAYS, _IN_OPTIMIZER = 0, 1, 2


class Sources:
    """The running source line as text, "transformers/models/llama/modeling_llama.py:68".

    A file is named from its package's parent folder on; one of no package from the current folder
    on, or by its name alone where it lies elsewhere. A line is put into words once; after that an
    op costs a walk over a handful of frames.
    """

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        # By the code's address, as hashing a code object reads all of it; kept, so that no other
        # code gets the address.
        self._lines: dict[tuple[int, int], tuple[CodeType, str]] = {}

    def running(self, *, optimizer: bool = False) -> str:
        """The innermost line that is not torch's, Python's or the profiler's, "" if there is none.

        Args:
            optimizer: lines of torch's optimizers count too.
        """
        frame = sys._getframe(1)
        files = self._files
        most = _IN_OPTIMIZER if optimizer else _ALWAYS
        while frame is not None:
            code = frame.f_code
            kind = files.get(code.co_filename)
            if kind is None:
                kind = files[code.co_filename] = _judged(code.co_filename)
            if 0 < kind <= most:
                key = (id(code), frame.f_lasti)
                known = self._lines.get(key)
                if known is None:
                    text = f"{named(code.co_filename)}:{frame.f_lineno}"
                    known = self._lines[key] = (code, text)
                return known[1]
            frame = frame.f_back  # type: ignore[assignment]
        return ""


def _judged(file: str) -> int:
    if file.startswith("<"):  # generated, nothing to look up
        return _NEVER
    if file.startswith(_OPTIMIZER):
        return _IN_OPTIMIZER
    if file.startswith(_SUBJECT):
        return _ALWAYS
    if file.startswith((_TORCH, _PROFILER)):
        return _NEVER
    if file.startswith(_LIBRARY) and not any(part in file for part in _SITE):
        return _NEVER
    return _ALWAYS


def named(file: str) -> str:
    """A file's name that says nothing of the machine: see `Sources`."""
    path = Path(file)
    top = path.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    if top != path.parent:
        return path.relative_to(top).as_posix()
    for part in _SITE:
        if part in file:
            return Path(file.rpartition(part)[2]).as_posix()
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name
