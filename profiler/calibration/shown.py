"""A device profile in short: the rates a person knows a machine by."""

from __future__ import annotations

from typing import TextIO

from rich.table import Table

from profiler import terminal
from profiler.hardware.device_profile import DeviceProfile


def text(profile: DeviceProfile, stream: TextIO) -> str:
    """What stands on stdout."""
    heading = (
        f"{profile.name}, {profile.kind}, {profile.threads} thread"
        f"{'s' * (profile.threads > 1)}, measured in {profile.seconds:.0f} s"
        f"{', quick: for a try, not for figures' * profile.quick}"
    )
    return terminal.text(stream, heading, table(profile))


def table(profile: DeviceProfile) -> Table:
    """One row for each figure."""
    shown = terminal.plain_table()
    shown.add_column("what", no_wrap=True)
    shown.add_column("measured", justify="right", no_wrap=True)
    shown.add_column("at", overflow="fold", min_width=20)
    for row in rows(profile):
        shown.add_row(*row)
    return shown


def rows(profile: DeviceProfile) -> list[tuple[str, str, str]]:
    """(what, how much, at which size)."""
    found = []
    for op, dtype in sorted({(one.op, one.dtype) for one in profile.products}):
        same = [one for one in profile.products if (one.op, one.dtype) == (op, dtype)]
        best = max(same, key=lambda one: _flops(one.batch, one.m, one.n, one.k) / one.seconds)
        size = f"{best.m} x {best.n} x {best.k}"
        if best.batch > 1:
            size = f"{best.batch} of {size}"
        rate = _flops(best.batch, best.m, best.n, best.k) / best.seconds
        found.append((f"{op}, {dtype}", f"{rate / 1e9:,.1f} GFLOP/s", size))
    for dtype in sorted({one.dtype for one in profile.attention}):
        fastest = max(
            (one for one in profile.attention if one.dtype == dtype),
            key=lambda one: one.flops / one.seconds,
        )
        found.append(
            (f"attention, {dtype}", f"{fastest.flops / fastest.seconds / 1e9:,.1f} GFLOP/s",
             fastest.op)
        )  # fmt: skip
    for copy in profile.copies:
        rate = 2 * copy.nbytes / copy.seconds
        found.append(("copy, read and written", f"{rate / 1e9:,.1f} GB/s", _size(copy.nbytes)))
    for phase in ("forward", "backward", "optimizer"):
        seconds = getattr(profile.host, phase)
        found.append((f"host, an op of the {phase}", f"{seconds * 1e6:.1f} µs", ""))
    found.append(("host, a tensor of a list", f"{profile.host.tensor * 1e6:.1f} µs", ""))
    found.append(("memory given anew", f"{profile.fault * 4096e6:.2f} µs", "a page of 4 KiB"))
    found.append(("kernels", f"{len(profile.kernels)} curves", "by op and type"))
    return found


def _flops(batch: int, m: int, n: int, k: int) -> int:
    return 2 * batch * m * n * k


def _size(nbytes: int) -> str:
    return f"{nbytes >> 10:,} KiB" if nbytes < 1 << 20 else f"{nbytes >> 20:,} MiB"
