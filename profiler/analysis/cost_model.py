"""Seconds of one op on a machine, from what it computes and moves.

A roofline (Williams, Waterman and Patterson, "Roofline: an insightful visual performance model",
CACM 52(4), 2009) with what keeps kernels below it:

- a product runs in tiles, as many at a time as there are multiprocessors, so its last wave is paid
  in full, and so is what a tile reaches over the matrix's edge ("Matrix multiplication background
  user's guide", NVIDIA, sections on tile and wave quantization);
- what the last cache still holds is read at the cache's bandwidth;
- no kernel is shorter than a kernel can be, however little it does.

Rates come from `profiler.hardware.ceilings`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from profiler.hardware.ceilings import Ceilings, Issue
from profiler.trace import Op

#: What keeps a kernel from being shorter. `launch`: that it is one, however little it does.
Bound = Literal["launch", "memory", "compute"]
BOUNDS: tuple[Bound, ...] = ("launch", "memory", "compute")

#: Output tiles of product kernels (rows, columns), and the share of the best kernels' rate that
#: one reaches: a smaller tile reads its operands more often for each multiply-add
#: (NVIDIA's guide, "Typical tile dimensions in cuBLAS and performance").
TILES = (((256, 128), 1.0), ((128, 128), 0.95), ((128, 64), 0.8), ((64, 64), 0.6))
#: Into how many parts the inner dimension of a single product may be split, so that there are
#: tiles for all.
SPLITS = (1, 2, 4, 8)
#: Inner positions that filling and draining a tile's pipeline costs.
PIPELINE = 64
#: What the inner dimension is a multiple of in a kernel.
INNER = 32

#: Transforms and decompositions, which no tensor core computes.
_VECTOR = ("_fft_", "linalg", "cholesky")


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of an op on the device, and what decides them."""

    seconds: float
    bound: Bound


def cost(op: Op, ceilings: Ceilings) -> Cost:
    """What an op takes once it is launched; nothing if it launches no kernel."""
    if not op.kernels:
        return Cost(0.0, "launch")
    memory = memory_seconds(op, ceilings)
    compute = compute_seconds(op, ceilings)
    least = op.kernels * ceilings.kernel_seconds
    if least >= max(memory, compute):
        return Cost(least, "launch")
    return Cost(compute, "compute") if compute >= memory else Cost(memory, "memory")


def issue_seconds(op: Op, issue: Issue) -> float:
    """What the host does until it has launched an op: itself, and what came since the op before."""
    if op.name.endswith("_local_scalar_dense"):
        own = issue.value
    elif not op.kernels and not op.items:
        own = issue.view
    elif op.phase == "backward" and not op.recompute:
        own = issue.backward_op
    else:
        own = issue.optimizer_op if op.phase == "optimizer" else issue.forward_op
    view = issue.view
    if op.phase == "backward" and not op.recompute:
        view *= issue.backward_op / issue.forward_op
    further = op.items * issue.item + max(op.kernels - 1, 0) * issue.launch
    return own + op.views * view + op.modules * issue.module + further


def memory_seconds(op: Op, ceilings: Ceilings) -> float:
    """What its reads and writes take."""
    cached = min(op.cached, op.nbytes) if ceilings.cache_bandwidth else 0
    seconds = (op.nbytes - cached) / ceilings.bandwidth
    return seconds + cached / ceilings.cache_bandwidth if cached else seconds


def compute_seconds(op: Op, ceilings: Ceilings) -> float:
    """What its arithmetic takes."""
    if not op.flops:
        return 0.0
    rates = ceilings.matmul_flops
    if len(op.product) == 4:
        batch, m, n, k = op.product
        return product_seconds(ceilings, op.dtype, batch, m, n, k)
    flops = op.flops
    if "attention" in op.name:
        rates = ceilings.attention_flops or rates
        flops = flops // 2 if op.causal else flops
    elif any(part in op.name for part in _VECTOR):
        rates = ceilings.vector_flops or rates
    return flops / _rate(rates, op.dtype)


def product_seconds(ceilings: Ceilings, dtype: str, batch: int, m: int, n: int, k: int) -> float:
    """What a product of (batch, m, k) by (batch, k, n) takes to compute."""
    work = 2 * batch * m * n * k
    if ceilings.multiprocessors:
        work = max(work, tiled_flops(ceilings.multiprocessors, batch, m, n, k))
    return work / _rate(ceilings.matmul_flops, dtype)


@functools.lru_cache(maxsize=1 << 14)
def tiled_flops(multiprocessors: int, batch: int, m: int, n: int, k: int) -> int:
    """FLOPs that the multiprocessors could do in the time of a product, by the tile that suits it
    best; never less than the product has."""
    best = math.inf
    for (one, other), share in TILES:
        for rows, columns in {(one, other), (other, one)}:
            tiles = batch * -(-m // rows) * -(-n // columns)
            for parts in SPLITS if batch == 1 else SPLITS[:1]:
                inner = INNER * -(-k // (parts * INNER)) + PIPELINE
                waves = -(-tiles * parts // multiprocessors)
                best = min(best, waves * multiprocessors * rows * columns * inner / share)
    return max(2 * round(best), 2 * batch * m * n * k)


def _rate(rates: Mapping[str, float], dtype: str) -> float:
    return rates.get(dtype) or rates["float32"]
