"""`x W^T` with W in bitsandbytes' NF4: each tile of W is decoded in registers, where it is used.

bitsandbytes has a fused kernel for few rows of x (by card and shape; past 1536 for none), and
otherwise decodes the whole matrix into memory and multiplies then
(`bitsandbytes/backends/cuda/ops.py`, `gemm_4bit`): the 16-bit copy of W is written and read once in
each product, and is a temporary of its size.

Layout (`bitsandbytes/functional.py`, `quantize_4bit`): W of shape (N, K) is flattened row by row;
two values share a byte, the first in the upper half; a block of 64 values has one absmax, by which
the table of 16 values is scaled. With double quantization the absmax is itself 8 bits: an index
into a table of 256 values, scaled by the absmax of 256 of them, plus one offset.
"""

# Triton finds the types of a kernel's arguments; its constants are in capitals, as in Triton's own.
# mypy: allow-untyped-defs, allow-incomplete-defs
# ruff: noqa: N803

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from profiler.errors import UsageError

from .launching import Tile, check, check_activations, launch, pick

#: Values that share one absmax, and absmaxes that share one in double quantization.
BLOCK = 64
NESTED_BLOCK = 256

#: By rows of x: generation, a short sequence, training. A step over K is one quantized block.
TILES = (Tile(16, 64, BLOCK, 4, 3), Tile(64, 64, BLOCK, 4, 3), Tile(128, 128, BLOCK, 8, 3))


@triton.jit
def nf4_matmul_kernel(
    x_ptr,  # (rows, depth), 16-bit floats
    packed_ptr,  # ceil(columns * depth / 2) bytes
    absmax_ptr,  # one for 64 weights: 32-bit floats, or bytes if NESTED
    code_ptr,  # the 16 values of NF4, 32-bit floats
    nested_absmax_ptr,  # one for 256 absmaxes, 32-bit floats; read if NESTED, as are the next two
    nested_code_ptr,  # 256 values, 32-bit floats
    offset_ptr,  # one 32-bit float
    y_ptr,  # (rows, columns), of x's dtype
    rows,
    columns,
    depth,
    NESTED: tl.constexpr,
    ALIGNED: tl.constexpr,  # depth is a multiple of 64: a block of weights lies in one row
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    # 64 bits: a large vocabulary's head passes 2**31 weights.
    first = n[:, None].to(tl.int64) * depth
    total = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    for start in range(0, depth, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = m[:, None] < rows
        if not ALIGNED:
            inside = inside & (k[None, :] < depth)
        x = tl.load(x_ptr + m[:, None].to(tl.int64) * depth + k[None, :], mask=inside, other=0.0)

        stored = n[:, None] < columns
        if ALIGNED:
            byte = (first + start) // 2 + tl.arange(0, BLOCK_K // 2)[None, :]
            pair = tl.load(packed_ptr + byte, mask=stored, other=0)
            nibble = tl.reshape(tl.join(pair >> 4, pair & 15), (BLOCK_N, BLOCK_K))
            block = (first + start) // 64
        else:
            stored = stored & (k[None, :] < depth)
            place = first + k[None, :]
            pair = tl.load(packed_ptr + place // 2, mask=stored, other=0)
            nibble = tl.where(place % 2 == 0, pair >> 4, pair & 15)
            block = place // 64
        if NESTED:
            level = tl.load(absmax_ptr + block, mask=stored, other=0).to(tl.int32)
            scale = tl.load(nested_absmax_ptr + block // 256, mask=stored, other=0.0)
            scale = tl.load(nested_code_ptr + level) * scale + tl.load(offset_ptr)
        else:
            scale = tl.load(absmax_ptr + block, mask=stored, other=0.0)
        # Rounded to x's dtype as bitsandbytes does. Past K's end x is 0.
        weight = (tl.load(code_ptr + nibble.to(tl.int32)) * scale).to(x.dtype)

        if INTERPRETED:
            total = tl.dot(x.to(tl.float32), tl.trans(weight.to(tl.float32)), total)
        else:
            total = tl.dot(x, tl.trans(weight), total)
    y = y_ptr + m[:, None].to(tl.int64) * columns + n[None, :]
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    tl.store(y, total.to(y_ptr.dtype.element_ty), mask=inside)


def nf4_matmul(
    x: torch.Tensor, packed: torch.Tensor, state: Any, *, tile: Tile | None = None
) -> torch.Tensor:
    """`x W^T` without W in memory.

    Args:
        x: (M, K), float16 or bfloat16, contiguous.
        packed: W of shape (N, K) as `bitsandbytes.functional.quantize_4bit` packed it.
        state: its `QuantState`: NF4 in blocks of 64, with or without double quantization.
        tile: by default by the number of rows; K is taken 64 at a time.

    Returns:
        (M, N), of x's dtype. The decoded weights are x's dtype, the sums are of 32 bits.

    Raises:
        UsageError: x or the weight is not as above.
    """
    check_activations(x)
    rows, depth = x.shape
    if state.quant_type != "nf4" or state.blocksize != BLOCK or len(state.shape) != 2:
        raise UsageError(
            f"the weight must be a matrix in NF4 with blocks of {BLOCK}, not {state.quant_type} "
            f"of shape {tuple(state.shape)} with blocks of {state.blocksize}"
        )
    columns = state.shape[0]
    if state.shape[1] != depth:
        raise UsageError(f"x has {depth} columns, the weight {state.shape[1]}")
    nested = state.state2
    if nested is not None and nested.blocksize != NESTED_BLOCK:
        raise UsageError(f"nested blocks must be of {NESTED_BLOCK}, not {nested.blocksize}")
    blocks = -(-columns * depth // BLOCK)
    check("packed", packed, (-(-columns * depth // 2), 1), torch.uint8)
    check("absmax", state.absmax, (blocks,), torch.float32 if nested is None else torch.uint8)
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    tile = tile or pick(TILES, rows)
    launch(
        nf4_matmul_kernel,
        tile.grid(rows, columns),
        tile,
        x,
        packed,
        state.absmax,
        state.code,
        # What is not nested reads none of these three.
        state.absmax if nested is None else nested.absmax,
        state.code if nested is None else nested.code,
        state.code if nested is None else state.offset,
        y,
        rows,
        columns,
        depth,
        NESTED=nested is not None,
        ALIGNED=depth % BLOCK == 0,
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_K=tile.k,
    )
    return y
