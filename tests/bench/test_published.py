"""Simulated against measured by others on a real T4; `profiler/validation/cases` has the source."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from profiler.execute import run
from profiler.validation import cases

MIB = 2**20

#: Some of the published runs; `python -m profiler.validate` takes all of them.
T4 = [
    "tinyllama-2x512-eager",
    "tinyllama-2x512-sdpa",
    "tinyllama-2x2048-eager",
    "tinyllama-2x1024-sdpa",
    "smollm2-4x1024-eager",
    "smollm2-4x1024-sdpa",
]


@torch.no_grad()
def _rotary_by_a_product(
    self: Any, x: torch.Tensor, position_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`LlamaRotaryEmbedding.forward` up to transformers 5.18."""
    frequencies = self.inv_freq[None, :, None].expand(position_ids.shape[0], -1, 1).float()
    angles = (frequencies @ position_ids[:, None, :].float()).transpose(1, 2)
    both = torch.cat((angles, angles), dim=-1)
    cos, sin = both.cos() * self.attention_scaling, both.sin() * self.attention_scaling
    return cos.to(dtype=x.dtype), sin.to(dtype=x.dtype)


@pytest.mark.parametrize("name", T4)
def test_t4_qlora(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the product that the measured transformers 5.16.1 begins a forward with: it takes
    cuBLAS's workspace before the first layer's holes are there, and where that lies decides which
    segments a step needs. Half a MiB is rounding, the rest a mask and labels of their own."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", _rotary_by_a_product)
    group = cases.group("t4-qlora")
    case = group.case(name)
    record = run(group.spec_of(case, group.runs[0]))
    assert record.status == "ok", record.error
    phases = ("forward", "backward", "optimizer")
    ours = [record.memory.phases[phase] / MIB for phase in phases]
    published = [int(case.row[f"peak_{phase}_mib"]) for phase in phases]
    assert ours == pytest.approx(published, abs=0.55)
    assert record.memory.load is not None
    loaded = record.memory.load.after_allocated / MIB
    assert loaded == pytest.approx(int(case.row["allocated_after_load_mib"]), rel=0.001)
    assert record.memory.peak_reserved == int(case.row["peak_reserved_mib"]) * MIB
