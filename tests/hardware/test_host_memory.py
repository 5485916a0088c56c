from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.hardware.host_memory import Available, HostMemory, oom_kills

GIB = 2**30
MIB = 2**20


@pytest.fixture(autouse=True)
def _system(monkeypatch: pytest.MonkeyPatch) -> None:
    system = SimpleNamespace(available=40 * GIB, total=64 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: system)


class Kernel:
    """A /proc and control groups of our own making."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.groups = folder / "groups"
        (self.proc / "self").mkdir(parents=True)

    def place(self, groups: str, mounts: str) -> None:
        (self.proc / "self" / "cgroup").write_text(groups)
        (self.proc / "self" / "mountinfo").write_text(mounts.replace("GROUPS", str(self.groups)))

    def write(self, group: str, **files: object) -> None:
        folder = self.groups / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / f"memory.{name}").write_text(f"{content}\n")

    def available(self) -> Available:
        return HostMemory(self.proc).available()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


V2_MOUNT = "30 20 0:26 / GROUPS rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = (
    "31 20 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {root} GROUPS rw - cgroup cgroup rw,memory\n"
    "34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def test_without_control_groups_it_is_what_the_system_has(kernel: Kernel) -> None:
    assert kernel.available() == Available(40 * GIB, 64 * GIB, "on this machine")
    kernel.place("0::/a\n", V2_MOUNT)
    kernel.write("", current=GIB)
    kernel.write("a", max="max", high="max", current=GIB, stat="anon 5")
    assert kernel.available().where == "on this machine"


@pytest.mark.parametrize("tight", ["a", "a/b", "a/b/c"])
def test_the_tightest_of_the_groups_above_counts(kernel: Kernel, tight: str) -> None:
    kernel.place("0::/a/b/c\n", V2_MOUNT)
    for group in ("a", "a/b", "a/b/c"):
        kernel.write(group, max=30 * GIB, high="max", current=4 * GIB, stat="anon 1\nfile 2")
    assert kernel.available().nbytes == 26 * GIB
    kernel.write(tight, max=8 * GIB)
    found = kernel.available()
    assert (found.nbytes, found.limit) == (4 * GIB, 8 * GIB)
    assert found.where == "in this control group"
    kernel.write(tight, high=6 * GIB)
    assert kernel.available().nbytes == 2 * GIB


def test_another_groups_limit_does_not_count(kernel: Kernel) -> None:
    kernel.place("0::/a\n", V2_MOUNT)
    kernel.write("a", max="max", high="max", current=0)
    kernel.write("b", max=GIB, high="max", current=0)
    assert kernel.available().where == "on this machine"


def test_page_cache_can_be_had_back(kernel: Kernel) -> None:
    kernel.place("0::/a\n", V2_MOUNT)
    stat = f"anon 7\nactive_file {GIB}\ninactive_file {2 * GIB}"
    kernel.write("a", max=8 * GIB, high="max", current=5 * GIB, stat=stat)
    assert kernel.available().nbytes == 6 * GIB
    kernel.write("a", current=12 * GIB)
    assert kernel.available().nbytes == 0


@pytest.mark.parametrize(
    ("root", "path", "group"),
    [
        ("/", "/a/b", "a/b"),
        ("/a", "/a/b", "b"),
        ("/docker/1", "/docker/1", ""),
        ("/docker/1", "/elsewhere/2", ""),  # a container that sees only its own group
    ],
)
def test_version_1_is_read_wherever_it_is_mounted(
    kernel: Kernel, root: str, path: str, group: str
) -> None:
    kernel.place(f"4:cpu,cpuacct:/x\n3:memory:{path}\n0::/\n", V1_MOUNT.format(root=root))
    kernel.write("", limit_in_bytes=2**63 - 4096, usage_in_bytes=GIB)
    stat = f"active_file 1\ntotal_active_file {GIB}\ntotal_inactive_file 0"
    kernel.write(group, limit_in_bytes=4 * GIB, usage_in_bytes=3 * GIB, stat=stat)
    assert kernel.available() == Available(2 * GIB, 4 * GIB, "in this control group")


@given(st.integers(1, 2**45))
def test_the_reserve_grows_with_the_limit_within_bounds(limit: int) -> None:
    reserve = Available(0, limit, "").reserve
    assert 128 * MIB <= reserve <= GIB
    assert reserve <= Available(0, 2 * limit, "").reserve


def test_here_it_reads_something_that_can_be() -> None:
    found = HostMemory().available()
    assert 0 < found.nbytes <= found.limit


def test_the_kernels_kills_are_counted_where_it_says(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill 3\n")
    assert oom_kills(tmp_path) == 3
