"""How each command of the package begins and ends.

Data goes to stdout; what is said of it is one line at a time on stderr, after the command's name.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from profiler import stdout
from profiler.errors import ProfilerError, UsageError
from profiler.lines import one_line


class Parser(argparse.ArgumentParser):
    """A wrong flag is a `UsageError`: one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


class Command:
    """A command of the package.

    Args:
        name: the module's, as in `python -m NAME`.
        interrupted: what is said after Ctrl-C, nothing if empty.
    """

    def __init__(self, name: str, *, interrupted: str = "") -> None:
        self.name = name
        self._interrupted = interrupted

    def say(self, text: str) -> None:
        """One line on stderr, whatever the text holds."""
        print(f"{self.name}: {one_line(text.strip())}", file=sys.stderr)

    def run(self, work: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
        """Do the work and return the exit status: its own, an error's (1, or 2 for wrong usage), or
        130 after Ctrl-C.

        Args:
            arguments: those of the command line, None for this process's.
        """
        stdout.prepare()
        try:
            try:
                return work(sys.argv[1:] if arguments is None else arguments)
            except SystemExit as done:  # --help, --version
                stdout.to_stdout(lambda: None)
                return int(done.code or 0)
        except ProfilerError as error:
            self.say(f"error: {error}")
            return error.exit_code
        except KeyboardInterrupt:
            if self._interrupted:
                self.say(self._interrupted)
            return 130
        except OSError as error:
            self.say(f"error: {error}")
            return 1


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C. A plain KeyboardInterrupt that passes through code which C has called (an import
    inside numpy, say) makes Python end by the signal whatever exit status is asked for."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _Interrupted


def start(main: Callable[[], int]) -> None:
    """Run `main` as this process's program and exit with its status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.exit(main())
