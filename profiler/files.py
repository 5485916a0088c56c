"""Files that are written whole or not at all."""

from __future__ import annotations

import gzip
import os
import secrets
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from profiler.errors import StoreError
from profiler.locks import lock

#: How often a file is written anew when someone else's clearing up has taken it for left behind.
_TRIES = 3


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` in place of what is at `path`; a reader sees the old content or the new.

    The content is on disk before it gets its name. The folder is made if it is missing. Until
    then it lies beside `path` under a name that starts with a dot and ends in `.tmp`, locked, so
    that it is known for left behind if this process is killed (`profiler.locks`).

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    for left in reversed(range(_TRIES)):
        try:
            _replace(path, data)
            break
        except FileNotFoundError:  # it was not locked yet, or no longer
            if not left:
                raise
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must be durable too
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            lock(file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_page(html: str, folder: Path) -> Path:
    """Write `folder/index.html` and return its path.

    Raises:
        StoreError: it cannot be written.
    """
    path = folder / "index.html"
    try:
        replace_file(path, html.encode("utf-8"))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None
    return path


#: Bytes that a packed file may hold; a trace of a large model has some ten millions.
UNPACKED_LIMIT = 1 << 30


def unpack(data: bytes) -> bytes:
    """The content of gzip data, which may come from strangers.

    Raises:
        ValueError: it is none, is cut short, or holds more than `UNPACKED_LIMIT`.
    """
    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as file:
            content = file.read(UNPACKED_LIMIT + 1)
    except EOFError:
        raise ValueError("the file is cut short") from None
    except (OSError, zlib.error) as error:
        raise ValueError(str(error)) from None
    if len(content) > UNPACKED_LIMIT:
        raise ValueError(f"it holds more than {UNPACKED_LIMIT:,} bytes")
    return content
