from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from profiler.bench import measured
from profiler.hardware import devices
from profiler.hardware.recognise import recognise

#: As drivers name them.
NAMES = {
    "t4": "Tesla T4",
    "v100-32gb": "Tesla V100-SXM2-32GB",
    "l40s": "NVIDIA L40S",
    "rtx-6000-ada": "NVIDIA RTX 6000 Ada Generation",
    "a100-80gb": "NVIDIA A100-SXM4-80GB",
    "a100-80gb-pcie": "NVIDIA A100 80GB PCIe",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
    "rtx-4090": "NVIDIA GeForce RTX 4090",
}


@pytest.mark.parametrize("key", NAMES)
def test_a_card_is_known_by_what_torch_says_of_it(key: str) -> None:
    card = devices.device(key)
    found = recognise(
        NAMES[key],
        compute_capability=card.compute_capability,
        sm_count=card.sm_count,
        memory_bytes=int(card.memory_bytes * 0.97),
    )
    assert found is card


def test_a_part_of_a_card_is_not_the_card() -> None:
    card = devices.device("a100-80gb")
    assert (
        recognise(
            "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
            compute_capability=card.compute_capability,
            sm_count=42,
            memory_bytes=card.memory_bytes // 2,
        )
        is None
    )


def test_the_device_of_a_measured_run_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    card = devices.device("l4")
    major, minor = card.compute_capability
    told = SimpleNamespace(
        name="NVIDIA L4",
        major=major,
        minor=minor,
        multi_processor_count=card.sm_count,
        total_memory=card.memory_bytes,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: told)
    assert measured._card() is card
