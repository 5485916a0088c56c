"""The kernel that torch takes, per card (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp)."""

from __future__ import annotations

import pytest
import torch

from profiler.bench.cuda import versions
from profiler.bench.cuda.attention import Request, select
from profiler.errors import UnsupportedError

T4, A100, A10G, RTX_4090 = (7, 5), (8, 0), (8, 6), (8, 9)
H100, B200, RTX_5090 = (9, 0), (10, 0), (12, 0)


@pytest.fixture
def torch_2_13(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "TORCH", (2, 13))


@pytest.fixture
def torch_2_14(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "TORCH", (2, 14))


def request(
    dtype: torch.dtype = torch.bfloat16,
    *,
    head: int = 64,
    kv_heads: int = 8,
    mask: bool = False,
    dropout: float = 0.0,
    gqa: bool = False,
    causal: bool = True,
) -> Request:
    query = torch.empty(2, 8, 16, head, dtype=dtype, device="meta", requires_grad=True)
    key = torch.empty(2, kv_heads, 16, head, dtype=dtype, device="meta")
    bias = torch.empty(2, 1, 16, 16, dtype=torch.bool, device="meta") if mask else None
    return Request(query, key, key, bias, dropout, causal and not mask, gqa)


def with_mask(*shape: int, strides: tuple[int, ...] | None = None) -> Request:
    """A 16-bit call whose mask has this shape and these strides."""
    asked = request(mask=True)
    bias = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    if strides is not None:
        bias = bias.as_strided(shape, strides)
    return Request(asked.query, asked.key, asked.value, bias, 0.0, False, False)


@pytest.mark.parametrize(
    ("capability", "asked", "expected"),
    [
        (RTX_4090, request(), "flash"),
        (A100, request(torch.float16), "flash"),
        (H100, request(), "cudnn"),
        (H100, request(dropout=0.1), "flash"),  # cuDNN drops in sixteenths only
        (H100, request(dropout=0.125), "cudnn"),
        (H100, request(head=256), "flash"),
        (RTX_4090, request(head=256), "flash"),
        (RTX_4090, request(head=224), "efficient"),  # flash's backward, sm_86 to sm_89
        (A100, request(head=224), "flash"),
        (RTX_4090, request(mask=True), "efficient"),
        (A100, request(torch.float32), "efficient"),
        (T4, request(torch.float16), "efficient"),
        (T4, request(torch.bfloat16), "math"),
        (A100, request(head=60, mask=True), "math"),  # 60 is no multiple of 8
        (A100, request(torch.float32, head=60), "efficient"),  # but of 4
        (A100, request(kv_heads=2, gqa=True), "flash"),
        (A100, request(torch.float32, kv_heads=2, gqa=True), "math"),
        (T4, request(torch.float16, kv_heads=2, gqa=True), "math"),
        (B200, request(), "cudnn"),
        (B200, request(torch.float32), "efficient"),
        (RTX_5090, request(), "flash"),  # cuDNN goes first on sm_90 and sm_100 alone
        (RTX_5090, request(head=224), "efficient"),
        (RTX_5090, request(head=256, dropout=0.1), "efficient"),
        (A10G, request(head=224), "efficient"),
        (H100, request(mask=True), "cudnn"),
        (H100, request(head=132), "flash"),  # padded to 136; no multiple of 8 for cuDNN
        (H100, request(kv_heads=2, gqa=True), "cudnn"),
        (H100, request(torch.float32, mask=True), "efficient"),
        (H100, with_mask(2, 8, 16, 16), "cudnn"),
        (H100, with_mask(16, 16), "cudnn"),
        (H100, with_mask(8, 16, 16), "efficient"),  # cuDNN takes two or four dimensions
        (H100, with_mask(2, 8, 16, 1, strides=(128, 16, 1, 0)), "math"),
    ],
)
def test_selection(
    torch_2_13: None, capability: tuple[int, int], asked: Request, expected: str
) -> None:
    assert select(asked, capability) == expected


def test_a_forced_kernel_that_cannot_is_refused() -> None:
    assert select(request(), A100, "math") == "math"
    with pytest.raises(UnsupportedError, match="--sdpa-backend flash cannot run"):
        select(request(torch.float16), T4, "flash")


@pytest.mark.parametrize(
    ("capability", "asked", "expected"),
    [
        (A100, request(torch.float32, kv_heads=2, gqa=True), "efficient"),
        (T4, request(torch.float16, kv_heads=2, gqa=True), "efficient"),
        (A100, request(torch.float32, kv_heads=1), "efficient"),  # one head is for all
        (A100, request(torch.float32, kv_heads=2), "math"),  # not asked for
        (H100, request(head=256), "cudnn"),
        (H100, request(head=192), "flash"),  # trains with 192 beside 128, or with 256 twice
        (A100, request(head=256), "flash"),
    ],
)
def test_what_torch_2_14_changed(
    torch_2_14: None, capability: tuple[int, int], asked: Request, expected: str
) -> None:
    assert select(asked, capability) == expected


def test_an_offset_that_is_not_aligned_is_not_for_the_memory_efficient_kernels() -> None:
    storage = torch.empty(2 * 8 * 16 * 64 + 1, device="meta")
    shifted = storage.as_strided((2, 8, 16, 64), (8192, 1024, 64, 1), 1)
    asked = Request(shifted, shifted, shifted, None, 0.0, True, False)
    assert select(asked, A100) == "math"
    assert select(asked, T4) == "efficient"  # asked of sm_80 and later alone
