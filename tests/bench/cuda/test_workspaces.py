"""CublasHandlePool.cpp: how much, and whose."""

from __future__ import annotations

import pytest

from profiler.bench.cuda import versions
from profiler.bench.cuda.workspaces import cublas_workspace, on_op
from profiler.hardware import devices

MIB = 2**20


@pytest.mark.parametrize(
    ("card", "nbytes"),
    [
        ("t4", 8 * MIB + 128 * 1024),
        ("a100-80gb", 8 * MIB + 128 * 1024),
        ("rtx-4090", 8 * MIB + 128 * 1024),
        ("h100", 32 * MIB),
        ("b200", 32 * MIB),
        ("rtx-5090", 32 * MIB),
    ],
)
def test_size(card: str, nbytes: int) -> None:
    assert cublas_workspace(devices.device(card).compute_capability) == nbytes


def test_each_thread_has_one_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "TORCH", (2, 14))
    before = on_op((8, 0))
    assert before("aten.add", "forward") == []
    assert len(before("aten.mm", "forward")) == 1
    assert before("aten.addmm", "optimizer") == []  # the same thread, and cuBLASLt shares it
    assert len(before("aten.bmm", "backward")) == 1
    assert before("aten.mm", "backward") == []


def test_torch_2_15_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from profiler.bench.cuda import temporaries

    def inside_a_product() -> list[int]:
        import torch

        rule = temporaries.inside(devices.device("h100"))[torch.ops.aten.mm.default]
        factor = torch.empty(8, 8, device="meta")
        return rule((factor, factor), {})

    monkeypatch.setattr(versions, "TORCH", (2, 14))
    assert inside_a_product() == []
    monkeypatch.setattr(versions, "TORCH", (2, 15))
    assert on_op((9, 0))("aten.mm", "forward") == []
    assert inside_a_product() == [32 * MIB]
