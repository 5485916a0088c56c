"""The card of this machine and what is free of it, as the driver says (nvidia-ml-py).

Nothing is set and no context is made. No GPU has run this: it is tested against a stand-in for
pynvml only.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from profiler.errors import UsageError
from profiler.hardware.recognise import recognise


@dataclass(frozen=True, slots=True)
class LocalCard:
    """A card of `hardware.toml`, and the bytes of its memory that are free."""

    device: str
    free: int


def local_card(nvml: Any = None) -> LocalCard:
    """The first device of the driver.

    Args:
        nvml: the module `pynvml`, or one like it.

    Raises:
        UsageError: there is no driver, no card, or one that is not in the table.
    """
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            raise _none("nvidia-ml-py is not installed") from None
    try:
        nvml.nvmlInit()
    except Exception as error:  # no driver, no permission
        raise _none(str(error)) from None
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        name = nvml.nvmlDeviceGetName(handle)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except Exception as error:
        raise _none(str(error)) from None
    finally:
        nvml.nvmlShutdown()
    name = name.decode() if isinstance(name, bytes) else str(name)
    card = recognise(
        name,
        compute_capability=(capability[0], capability[1]),
        sm_count=None,
        memory_bytes=int(memory.total),
    )
    if card is None:
        raise UsageError(
            f"--device local: {name} is not in the table of cards; name the nearest one and give "
            f"--vram {memory.free}"
        )
    return LocalCard(card.key, min(int(memory.free), card.memory_bytes))


def _none(reason: str) -> UsageError:
    return UsageError(
        f"--device local needs an NVIDIA card, and there is none to ask ({reason}); name one, "
        "such as rtx-4090"
    )
