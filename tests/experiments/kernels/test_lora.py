"""LoRA's forward in one pass, in Triton's interpreter, against 64-bit sums and peft."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from experiments.kernels import lora
from experiments.kernels.checking import Case, lora_error
from experiments.kernels.launching import Tile
from profiler.errors import UsageError


@given(
    st.builds(
        Case,
        rows=st.integers(1, 40),
        columns=st.integers(1, 80),
        depth=st.integers(1, 150),
        dtype=st.sampled_from((torch.float16, torch.bfloat16)),
        seed=st.integers(0, 2**31),
        rank=st.integers(1, 40),
    )
)
@settings(max_examples=25)
def test_any_shape_is_right_to_what_rounding_allows(case: Case) -> None:
    assert lora_error(case) <= 1


@pytest.mark.parametrize("tile", lora.TILES, ids=str)
def test_every_tile_is_right_past_its_edges(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "TILES", (tile,))
    case = Case(tile.m + 1, tile.n + 3, tile.k + 1, torch.float16, seed=0, rank=17)
    assert lora_error(case) <= 1


def test_it_is_what_peft_computes() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(48, 33, bias=False)).half()
    config = LoraConfig(r=5, lora_alpha=12, target_modules=["0"], init_lora_weights=False)
    layer = get_peft_model(model, config).base_model.model[0].half()
    x = torch.randn(7, 48).half()
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        found = lora.lora_linear(x, layer.base_layer.weight, a, b, layer.scaling["default"])
        # peft rounds to 16 bits after each of its kernels.
        torch.testing.assert_close(found, layer(x), rtol=1e-2, atol=1e-2)


def test_a_fresh_adapter_changes_nothing() -> None:
    torch.manual_seed(0)
    x, weight, a = (torch.randn(*shape).half() for shape in ((3, 70), (9, 70), (4, 70)))
    fresh = lora.lora_linear(x, weight, a, torch.zeros(9, 4).half(), 2.0)
    without = lora.lora_linear(x, weight, torch.zeros_like(a), torch.randn(9, 4).half(), 2.0)
    assert torch.equal(fresh, without)
    torch.testing.assert_close(fresh, x @ weight.T)


def test_what_the_kernel_does_not_read_is_refused() -> None:
    x, weight, a, b = (
        torch.zeros(*shape, dtype=torch.bfloat16) for shape in ((2, 8), (4, 8), (3, 8), (4, 3))
    )
    assert lora.lora_linear(x, weight, a, b, 1.0).shape == (2, 4)
    with pytest.raises(UsageError, match=r"weight must be a contiguous torch\.bfloat16 tensor"):
        lora.lora_linear(x, weight.half(), a, b, 1.0)
    with pytest.raises(UsageError, match=r"b must be .* of shape \(4, 3\), not .* of \(4, 2\)"):
        lora.lora_linear(x, weight, a, b[:, :2].contiguous(), 1.0)
    with pytest.raises(UsageError, match="flatten"):
        lora.lora_linear(x[None], weight, a, b, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("depth", [100, 256])
@pytest.mark.parametrize("rows", [1, 100, 300])
def test_it_is_right_on_a_gpu(rows: int, depth: int) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert lora_error(Case(rows, 200, depth, dtype, seed=0, rank=16, device="cuda")) <= 1
