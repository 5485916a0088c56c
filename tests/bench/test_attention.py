"""The kernel that torch takes, per card (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp)."""

from __future__ import annotations

import pytest
import torch

from profiler.bench.cuda.attention import Request, select
from profiler.errors import UnsupportedError

T4, A100, RTX_4090, H100 = (7, 5), (8, 0), (8, 9), (9, 0)


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
    ],
)
def test_selection(capability: tuple[int, int], asked: Request, expected: str) -> None:
    assert select(asked, capability) == expected


def test_a_forced_kernel_that_cannot_is_refused() -> None:
    assert select(request(), A100, "math") == "math"
    with pytest.raises(UnsupportedError, match="--sdpa-backend flash cannot run"):
        select(request(torch.float16), T4, "flash")
