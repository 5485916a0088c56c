"""What a run's spec and its trace say of its memory, when it is run and from the stored trace."""

from __future__ import annotations

from typing import Any

from profiler import sizes
from profiler.analysis import memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.memory import Levels
from profiler.hardware import devices
from profiler.hardware.devices import Device
from profiler.record import Memory
from profiler.trace import Trace


def simulated_device(spec: dict[str, Any]) -> Device | None:
    """The GPU that a record's spec simulates, None where it is this machine.

    Raises:
        UsageError: a GPU that this version does not know, or one without so much memory.
    """
    name = str(spec.get("device", ""))
    if name in (*devices.MEASURED, "sim:cpu"):
        return None
    device, vram = devices.device(name), spec.get("vram")
    return device if vram is None else device.with_memory(sizes.parse(str(vram), "vram"))


def levels(trace: Trace, spec: dict[str, Any]) -> Levels:
    """The trace's bytes under the allocator of a record's spec.

    Raises:
        UsageError: a GPU or a setting of the allocator that this version does not know.
    """
    device = simulated_device(spec)
    capacity = device.usable_bytes if device is not None else None
    # A measured step has its real allocator's settings; its trace is of storage bytes.
    conf = str(spec.get("alloc_conf") or "") if trace.cuda else ""
    return memory.levels(trace, AllocConf.parse(conf), capacity)


def analyse(trace: Trace, level: Levels, spec: dict[str, Any]) -> Memory:
    """A record's `memory`, but for what only a process that runs can tell (`process`, and on a
    measured CUDA device the allocator's own statistics)."""
    result = memory.analyse(trace, level)
    device = simulated_device(spec)
    if device is not None:
        assert result.peak_reserved is not None
        result.outside_allocator["cuda_context"] = device.cuda_context_bytes
        result.device_total = result.peak_reserved + device.cuda_context_bytes
    return result
