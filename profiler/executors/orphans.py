"""No process outlives the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

#: Environment variable with the process id of who started a fork server.
PARENT = "PROFILER_FORKSERVER_PARENT"


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends, where there is such a thing.

    Args:
        parent: The parent's process id, if it may have ended already: then this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def end_descendants(group: int, mark: tuple[str, str]) -> None:
    """Kill a process group, and every process that left it but kept a variable of its environment.

    Args:
        group: Id of the group, which a process of ours was started in.
        mark: Name and value of an environment variable that only this process's descendants have.
    """
    import psutil

    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    name, value = mark
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(name) == value:
            with suppress(psutil.Error):
                process.kill()
