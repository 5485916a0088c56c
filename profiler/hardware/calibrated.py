"""A calibrated GPU's ceilings: what its device profile measured, in place of the datasheet's.

What a calibration does not measure (the caches, the tiles of products, what a module's call costs
the host) stays as it is for every card (`profiler.hardware.efficiency`). No GPU has been calibrated
and held against its steps yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from profiler.hardware import efficiency
from profiler.hardware.ceilings import Ceilings
from profiler.hardware.device_profile import DeviceProfile
from profiler.hardware.devices import Device


def ceilings(profile: DeviceProfile, device: Device) -> Ceilings:
    """What a card reaches by its profile."""
    usual = efficiency.ceilings(device)
    products = _best(
        (one.dtype, 2 * one.batch * one.m * one.n * one.k / one.seconds) for one in profile.products
    )
    attention = _best((one.dtype, one.flops / one.seconds) for one in profile.attention)
    copy = max(profile.copies, key=lambda one: one.nbytes)
    host = profile.host
    return replace(
        usual,
        name=profile.name,
        source="calibrated",
        matmul_flops={**usual.matmul_flops, **products},
        attention_flops={**usual.attention_flops, **attention},
        bandwidth=2 * copy.nbytes / copy.seconds,
        kernel_seconds=min(seconds for one in profile.kernels for _, seconds in one.points),
        issue=replace(
            usual.issue,
            forward_op=host.forward,
            backward_op=host.backward,
            optimizer_op=host.optimizer,
        ),
    )


def _best(rates: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The highest rate of each dtype."""
    found: dict[str, float] = {}
    for dtype, rate in rates:
        found[dtype] = max(rate, found.get(dtype, 0.0))
    return found
