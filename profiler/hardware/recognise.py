"""Which card of the table a CUDA device of this machine is."""

from __future__ import annotations

import re

from profiler.hardware import devices
from profiler.hardware.devices import Device

#: The total that drivers report varies with ECC and with what the driver keeps.
_MEMORY_TOLERANCE = 0.05


def recognise(
    name: str, *, compute_capability: tuple[int, int], sm_count: int | None, memory_bytes: int
) -> Device | None:
    """The known card with a device's properties; of several alike the one whose name is nearest.

    Args:
        name: as the driver gives it, such as "NVIDIA A100-SXM4-80GB".
        sm_count: None if it is not known.
        memory_bytes: the device's total.

    Returns:
        None for a card that is not in the table, or for a part of one (MIG).
    """
    alike = [
        device
        for device in devices.load().values()
        if device.compute_capability == compute_capability
        and sm_count in (None, device.sm_count)
        and abs(memory_bytes / device.memory_bytes - 1) <= _MEMORY_TOLERANCE
    ]
    words = _words(name)
    return max(alike, key=lambda device: len(words & _words(device.name)), default=None)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", name.lower()))
