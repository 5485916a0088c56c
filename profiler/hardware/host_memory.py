"""Memory that can still be had on this machine: the system's and its control groups'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

_MIB = 2**20


@dataclass(frozen=True)
class Available:
    """Bytes that can still be had, of a `limit` in bytes; `where` says whose limit it is."""

    nbytes: int
    limit: int
    where: str

    @property
    def reserve(self) -> int:
        """Bytes that no measured run may take, so that the machine stays answering: 3 % of the
        limit, at least 128 MiB and at most 1 GiB."""
        return min(max(3 * self.limit // 100, 128 * _MIB), 1024 * _MIB)


class HostMemory:
    """Reads the memory available to this process and its children, often and cheaply.

    What the system has is Linux's MemAvailable (elsewhere what psutil takes for it). A control
    group (https://docs.kernel.org/admin-guide/cgroup-v2.html, also version 1), a container's for
    one, has its limit less its usage; its page cache counts as available, as in MemAvailable.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._groups = list(_groups(proc))

    def available(self) -> Available:
        """The least of what the system and each control group have left."""
        system = psutil.virtual_memory()
        found = [Available(system.available, system.total, "on this machine")]
        for folder, files in self._groups:
            limits = [_number(folder / name) for name in files.limits]
            limit = min((one for one in limits if one is not None), default=system.total)
            used = _number(folder / files.usage)
            if limit >= system.total or used is None:  # no limit is a very large one in version 1
                continue
            left = max(0, limit - used + _page_cache(folder, files.page_cache))
            found.append(Available(left, limit, "in this control group"))
        return min(found, key=lambda one: one.nbytes - one.reserve)


def oom_kills(proc: Path = Path("/proc")) -> int | None:
    """How many processes the kernel has killed for want of memory since it started, those of
    control groups among them; None where it does not say (before Linux 4.13, other systems)."""
    return _of_table(proc / "vmstat").get("oom_kill")


@dataclass(frozen=True)
class _Files:
    """Names of a control group's files."""

    limits: tuple[str, ...]
    usage: str
    page_cache: tuple[str, ...]


# Above memory.high a group is slowed down until nothing moves, which is as good as a limit.
_VERSION_2 = _Files(
    ("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file")
)
_VERSION_1 = _Files(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)


def _groups(proc: Path) -> Iterator[tuple[Path, _Files]]:
    """Folders of the control groups that this process is in, from its own to the outermost seen.

    `/proc/self/cgroup` says where in a hierarchy, `/proc/self/mountinfo` where it is mounted: in a
    container often not the hierarchy's root but the container's own group.
    """
    try:
        groups = (proc / "self" / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:  # no Linux
        return
    paths: dict[str, str] = {}
    for line in groups:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):  # "" in version 2
            paths[controller] = path
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2" and "" in paths:
            path, files = paths[""], _VERSION_2
        elif kind == "cgroup" and "memory" in options.split(",") and "memory" in paths:
            path, files = paths["memory"], _VERSION_1
        else:
            continue
        folder = Path(mount)
        place = PurePosixPath(path)
        if place.is_relative_to(root):
            folder /= place.relative_to(root)
        while True:
            if (folder / files.usage).exists():
                yield folder, files
            if folder == Path(mount) or folder == folder.parent:
                break
            folder = folder.parent


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _page_cache(folder: Path, keys: tuple[str, ...]) -> int:
    table = _of_table(folder / "memory.stat")
    return sum(table.get(key, 0) for key in keys)


def _of_table(path: Path) -> dict[str, int]:
    """A file of lines `name number`."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
