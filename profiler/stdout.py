"""Data on stdout, whoever reads it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path


def prepare() -> None:
    """Let stdout and stderr take any text: a path may hold bytes that are none."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def to_stdout(write: Callable[[], None]) -> None:
    """Write and flush. A reader that went away (`| head`) is no error: it has what it wanted."""
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
