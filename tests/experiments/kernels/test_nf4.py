"""NF4's kernel in Triton's interpreter, against bitsandbytes' decoding and 64-bit sums."""

from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime.interpreter import InterpretedFunction

from experiments.kernels import nf4, reference
from experiments.kernels.checking import Case, nf4_error
from experiments.kernels.launching import Tile
from profiler.errors import UsageError

DTYPES = st.sampled_from((torch.float16, torch.bfloat16))
SEEDS = st.integers(0, 2**31)


def quantized(
    columns: int, depth: int, dtype: torch.dtype, seed: int, nested: bool
) -> tuple[torch.Tensor, bnb.QuantState]:
    weight = torch.randn(columns, depth, generator=torch.Generator().manual_seed(seed)).to(dtype)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=nested
    )
    return packed, state


@given(st.integers(1, 40), st.integers(2, 100), DTYPES, SEEDS, st.booleans())
@settings(max_examples=30)
def test_the_reference_decodes_as_bitsandbytes(
    columns: int, half: int, dtype: torch.dtype, seed: int, nested: bool
) -> None:
    """Flattened: bitsandbytes' CPU kernel (0.50.2) takes the wrong absmax where a block begins
    within a row, which its CUDA kernel and its plain code do not. Of more than one byte, which it
    would take for a transposed weight."""
    packed, state = quantized(columns, 2 * half, dtype, seed, nested)
    decoded = reference.nf4_dequantize(packed, state, dtype)
    assert decoded.shape == state.shape
    state.shape = torch.Size([columns * 2 * half])
    assert torch.equal(decoded.flatten(), bnb.dequantize_4bit(packed, state).flatten())


@given(st.integers(1, 40), st.integers(1, 3), DTYPES, SEEDS, st.booleans())
@settings(max_examples=20)
def test_a_layer_s_weight_decodes_as_bitsandbytes(
    columns: int, blocks: int, dtype: torch.dtype, seed: int, nested: bool
) -> None:
    packed, state = quantized(columns, 64 * blocks, dtype, seed, nested)
    decoded = reference.nf4_dequantize(packed, state, dtype)
    assert torch.equal(decoded, bnb.dequantize_4bit(packed, state))


@given(
    st.builds(
        Case,
        rows=st.integers(1, 40),
        columns=st.integers(1, 80),
        depth=st.integers(1, 3).map(lambda blocks: 64 * blocks) | st.integers(1, 150),
        dtype=DTYPES,
        seed=SEEDS,
        nested=st.booleans(),
    )
)
@settings(max_examples=25)
def test_any_shape_is_right_to_what_rounding_allows(case: Case) -> None:
    assert nf4_error(case) <= 1


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("tile", nf4.TILES, ids=str)
def test_every_tile_is_right_past_its_edges(
    tile: Tile, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nf4, "TILES", (tile,))
    for depth in (128, 65):
        case = Case(tile.m + 1, tile.n + 3, depth, torch.float16, seed=0, nested=nested)
        assert nf4_error(case) <= 1


@pytest.mark.parametrize("nested", [False, True])
def test_a_product_with_ones_is_the_weight_itself(nested: bool) -> None:
    packed, state = quantized(70, 64, torch.float16, 1, nested)
    found = nf4.nf4_matmul(torch.eye(64, dtype=torch.float16), packed, state)
    assert torch.equal(found.T, bnb.dequantize_4bit(packed, state))


def test_a_wrong_value_is_more_than_rounding_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(rows=1, columns=5, depth=64, dtype=torch.float16, seed=3)
    decode = reference.nf4_dequantize

    def off(packed: torch.Tensor, state: bnb.QuantState, dtype: torch.dtype) -> torch.Tensor:
        weight = decode(packed, state, dtype)
        weight[2, 7] *= 1.05
        return weight

    assert nf4_error(case) <= 1
    monkeypatch.setattr(reference, "nf4_dequantize", off)
    assert nf4_error(case) > 1


def test_a_kernel_that_triton_interprets_anyway_runs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under TRITON_INTERPRET=1, when `triton.jit` gives an interpreted function."""
    interpreted = InterpretedFunction(nf4.nf4_matmul_kernel.fn)
    monkeypatch.setattr(nf4, "nf4_matmul_kernel", interpreted)
    assert nf4_error(Case(rows=2, columns=5, depth=64, dtype=torch.bfloat16, seed=0)) <= 1


def test_what_the_kernel_does_not_read_is_refused() -> None:
    packed, state = quantized(8, 64, torch.float16, 0, False)
    x = torch.zeros(2, 64, dtype=torch.float16)
    with pytest.raises(UsageError, match="float16 or bfloat16"):
        nf4.nf4_matmul(x.float(), packed, state)
    with pytest.raises(UsageError, match="contiguous"):
        nf4.nf4_matmul(torch.zeros(64, 2, dtype=torch.float16).T, packed, state)
    with pytest.raises(UsageError, match="x has 32 columns, the weight 64"):
        nf4.nf4_matmul(x[:, :32].contiguous(), packed, state)
    weight = torch.randn(8, 64, dtype=torch.float16)
    with pytest.raises(UsageError, match="fp4"):
        nf4.nf4_matmul(x, *bnb.quantize_4bit(weight, blocksize=64, quant_type="fp4"))
    with pytest.raises(UsageError, match="blocks of 128"):
        nf4.nf4_matmul(x, *bnb.quantize_4bit(weight, blocksize=128, quant_type="nf4"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("depth", [100, 256])
@pytest.mark.parametrize("rows", [1, 100, 300])
def test_it_is_right_on_a_gpu(rows: int, depth: int) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        case = Case(rows, 200, depth, dtype, seed=0, nested=True, device="cuda")
        assert nf4_error(case) <= 1
