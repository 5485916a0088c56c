"""The card of this machine, from a stand-in for the driver: no GPU has run it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from profiler.advisor.local_card import local_card
from profiler.errors import UsageError


def driver(name: str, capability: tuple[int, int], total: int, free: int) -> Any:
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: name,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=total, free=free),
        nvmlDeviceGetCudaComputeCapability=lambda handle: list(capability),
    )


def test_a_known_card_and_what_is_free_of_it() -> None:
    found = local_card(driver("NVIDIA GeForce RTX 4090", (8, 9), 25_250_627_584, 20 * 2**30))
    assert (found.device, found.free) == ("rtx-4090", 20 * 2**30)
    assert local_card(driver("NVIDIA L40S", (8, 9), 47_810_000_000, 2**30)).device == "l40s"
    assert local_card(driver("Tesla T4", (7, 5), 15_642_329_088, 2**33)).device == "t4"


def test_another_card_is_said() -> None:
    with pytest.raises(UsageError, match="GTX 1080 is not in the table of cards"):
        local_card(driver("GTX 1080", (6, 1), 8 * 2**30, 2**30))


def test_no_driver_is_one_line() -> None:
    def fails() -> None:
        raise RuntimeError("NVML Shared Library Not Found")

    with pytest.raises(UsageError, match="needs an NVIDIA card"):
        local_card(SimpleNamespace(nvmlInit=fails))
