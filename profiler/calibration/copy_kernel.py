"""A copy as a Triton kernel: what a kernel can move that does nothing else. No GPU has run it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

#: Elements that one program copies.
BLOCK = 4096


@triton.jit
def _copy(source, target, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    tl.store(target + place, tl.load(source + place, mask=inside), mask=inside)


def copy(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy a contiguous tensor into another of the same size and type."""
    count = source.numel()
    _copy[(triton.cdiv(count, BLOCK),)](source, target, count, BLOCK)
