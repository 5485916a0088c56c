"""Bytes that fusing saves, by arithmetic: each matrix moved once, caches left out."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of float16 and bfloat16.
HALF = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """`rows` x `depth` activations times the transposed `columns` x `depth` weight of a layer."""

    layer: str
    rows: int
    columns: int
    depth: int


#: Llama-3.2-3B's layers (hidden 3072, intermediate 8192) in generation, and for 512 and 4096 rows.
SHAPES = tuple(
    Shape(layer, rows, columns, depth)
    for layer, columns, depth in (("q_proj", 3072, 3072), ("up_proj", 8192, 3072))
    for rows in (1, 512, 4096)
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes read and written: one pass, and the separate kernels. `temporary`: bytes of memory
    that only the separate kernels take, at most at one time."""

    fused: int
    separate: int
    temporary: int

    @property
    def saved(self) -> int:
        return self.separate - self.fused


def nf4(shape: Shape) -> Traffic:
    """Against decoding the weight to 16 bits and multiplying then; double-quantized absmax.

    Stored: 4 bits a weight, 8 bits for 64 of them, 32 bits for 256 of those.
    """
    weights = shape.columns * shape.depth
    blocks = -(-weights // 64)
    stored = -(-weights // 2) + blocks + 4 * -(-blocks // 256)
    fused = stored + HALF * shape.rows * (shape.depth + shape.columns)
    # Written once, read once.
    return Traffic(fused, fused + 2 * HALF * weights, HALF * weights)


def lora(shape: Shape, rank: int) -> Traffic:
    """Against `peft`'s five kernels: base product, two small ones, scaling, sum."""
    x, y = shape.rows * shape.depth, shape.rows * shape.columns
    low = shape.rows * rank
    weights = shape.columns * shape.depth + rank * (shape.depth + shape.columns)
    fused = HALF * (x + weights + y)
    # x again; x A^T written and read; the adapter's result written, scaled (read, written) and
    # summed (read, with the base's result, and written).
    separate = fused + HALF * (x + 2 * low + y + 2 * y + 3 * y)
    # Two results of the adapter, or of base and adapter, beside the one that stays.
    return Traffic(fused, separate, HALF * 2 * y)
