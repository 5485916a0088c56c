"""LoRA's forward, `x W^T + s (x A^T) B^T`, in one pass over x.

`peft` runs it as five kernels (`peft/tuners/lora/layer.py`, `Linear.forward`): the base product,
two small ones, a scaling and a sum; x is read twice, and the adapter's (M, N) result is written
and read again. Here each tile keeps `x A^T` in registers beside its part of `x W^T`. Every tile of
columns computes `x A^T` anew: r / (columns of a tile) of the base product's work on top.
"""

# Triton finds the types of a kernel's arguments; its constants are in capitals, as in Triton's own.
# mypy: allow-untyped-defs, allow-incomplete-defs
# ruff: noqa: N803

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launching import Tile, check, check_activations, launch, pick

#: By rows of x: generation, a short sequence, training.
TILES = (Tile(16, 64, 64, 4, 3), Tile(64, 64, 64, 4, 3), Tile(128, 128, 64, 8, 3))
#: `tl.dot` takes no side below.
SMALLEST = 16


@triton.jit
def lora_linear_kernel(
    x_ptr,  # (rows, depth), 16-bit floats, as are the others
    weight_ptr,  # (columns, depth)
    a_ptr,  # (rank, depth)
    b_ptr,  # (columns, rank)
    y_ptr,  # (rows, columns)
    rows,
    columns,
    depth,
    rank,
    scaling,  # a 32-bit float
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,  # the rank, up to the next power of two
    INTERPRETED: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    r = tl.arange(0, BLOCK_R)
    # 64 bits: a large vocabulary's head passes 2**31 numbers.
    row = m[:, None].to(tl.int64) * depth
    column = n[None, :].to(tl.int64) * depth
    total = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    low = tl.full((BLOCK_M, BLOCK_R), 0.0, tl.float32)
    for start in range(0, depth, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        mask = (m[:, None] < rows) & (k[None, :] < depth)
        x = tl.load(x_ptr + row + k[None, :], mask=mask, other=0.0)
        mask = (n[None, :] < columns) & (k[:, None] < depth)
        weight = tl.load(weight_ptr + column + k[:, None], mask=mask, other=0.0)
        mask = (r[None, :] < rank) & (k[:, None] < depth)
        a = tl.load(a_ptr + r[None, :] * depth + k[:, None], mask=mask, other=0.0)
        if INTERPRETED:
            x, weight, a = x.to(tl.float32), weight.to(tl.float32), a.to(tl.float32)
        total = tl.dot(x, weight, total)
        low = tl.dot(x, a, low)
    mask = (n[None, :] < columns) & (r[:, None] < rank)
    b = tl.load(b_ptr + n[None, :] * rank + r[:, None], mask=mask, other=0.0)
    low = (low * scaling).to(b.dtype)
    if INTERPRETED:
        low, b = low.to(tl.float32), b.to(tl.float32)
    total = tl.dot(low, b, total)
    y = y_ptr + m[:, None].to(tl.int64) * columns + n[None, :]
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    tl.store(y, total.to(y_ptr.dtype.element_ty), mask=inside)


def lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
    *,
    tile: Tile | None = None,
) -> torch.Tensor:
    """`x W^T + s (x A^T) B^T`: the forward of a linear layer with LoRA, without dropout.

    Args:
        x: (M, K), float16 or bfloat16, contiguous; the others are of its dtype.
        weight: (N, K). `a`: (r, K). `b`: (N, r).
        scaling: s; `lora_alpha / r` in LoRA.
        tile: by default by the number of rows.

    Returns:
        (M, N), of x's dtype. Sums are of 32 bits; `s x A^T` is rounded once to x's dtype.

    Raises:
        UsageError: a tensor is not as above.
    """
    check_activations(x)
    rows, depth = x.shape
    columns, rank = weight.shape[0], a.shape[0]
    check("weight", weight, (columns, depth), x.dtype)
    check("a", a, (rank, depth), x.dtype)
    check("b", b, (columns, rank), x.dtype)
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    tile = tile or pick(TILES, rows)
    launch(
        lora_linear_kernel,
        tile.grid(rows, columns),
        tile,
        x,
        weight,
        a,
        b,
        y,
        rows,
        columns,
        depth,
        rank,
        float(scaling),
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_K=tile.k,
        BLOCK_R=max(SMALLEST, triton.next_power_of_2(rank)),
    )
    return y
