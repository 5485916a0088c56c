"""Files that belong to a process as long as it holds a lock on them.

The kernel drops an advisory lock (`flock`) when its process ends, however that ends: what lies
there unlocked was left behind. Where there are no such locks (Windows, some network file systems)
nobody is kept off and nothing is taken for left behind; neither is an error.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

#: Names of the files that a process keeps only while it is busy with them: what it is writing, and
#: what it says to be at work on.
_BUSY = re.compile(r"\.[0-9a-f]{16}\.tmp|\..+\.claim")


def lock(handle: int, *, wait: bool = False) -> bool | None:
    """Lock an open file, until it is closed. False if another process holds it, which `wait` waits
    for; None if there are no locks there."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that are gone were busy with in a folder."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if _BUSY.fullmatch(name):
                _remove_if_abandoned(folder / name)


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):  # gone by now, or not ours to remove
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            if lock(handle):
                path.unlink()
        finally:
            os.close(handle)


class Claim:
    """What this process is at work on, so that no other begins it too."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self._path = path
        self._handle = handle

    def release(self) -> None:
        """Let others have it. A second call does nothing."""
        if self._handle is not None:
            with suppress(OSError):  # while it is locked: who gets it next sees that it is gone
                self._path.unlink()
            os.close(self._handle)
            self._handle = None


def claim(path: Path, *, wait: bool = False) -> Claim | None:
    """Claim what a file stands for; None if another process has it, which `wait` waits for.

    Args:
        path: Named `.….claim`; it is there as long as the claim, and until the next
            `remove_abandoned` if this process is killed.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # a folder that cannot be written keeps nobody off
            return Claim(path, None)
        try:
            held = lock(handle, wait=wait)
            if held and _is_at(path, handle):
                kept, handle = handle, -1
                return Claim(path, kept)
            if held is None:
                path.unlink(missing_ok=True)
                return Claim(path, None)
            if not held:
                return None
        finally:
            if handle >= 0:
                os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is still the one at `path`: it may have been released just now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
