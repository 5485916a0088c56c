"""glibc's malloc: have freed tensors go back to the system while memory is looked at.

By default malloc raises its mmap threshold to 32 MiB as blocks are freed, and keeps smaller ones
for itself, so that resident memory says more of the process's history than of its tensors
(mallopt(3), M_MMAP_THRESHOLD). Timed steps run with what a process ends up with by itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

#: What the threshold grows to by itself on 64-bit systems (DEFAULT_MMAP_THRESHOLD_MAX).
_GROWN = 32 << 20

#: Blocks from here on are mapped one by one and unmapped when they are freed.
_STRICT = 256 << 10


@contextmanager
def returning_freed() -> Iterator[None]:
    """Resident memory follows what is allocated while the context lasts; a no-op without glibc."""
    _set(_STRICT)
    try:
        yield
    finally:
        _set(_GROWN)


def _set(threshold: int) -> None:
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, threshold)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * threshold)
        libc.malloc_trim(0)
    except (OSError, AttributeError):
        return
