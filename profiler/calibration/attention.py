"""Fused attention, forward and backward, by how many keys a query meets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from profiler.calibration.described import describe
from profiler.calibration.operands import Operands
from profiler.calibration.timing import Stopwatch
from profiler.hardware.device_profile import Attention

#: Queries, and as many keys.
LENGTHS = (32, 128, 512, 1024)
QUICK_LENGTHS = (32, 64)
HEADS = 8
WIDTH = 64


def measure(
    watch: Stopwatch,
    operands: Operands,
    dtypes: tuple[torch.dtype, ...],
    *,
    quick: bool,
    done: Callable[[], None] = lambda: None,
) -> list[Attention]:
    """Time causal attention for each dtype and length; `done` is called after each."""
    found = []
    for dtype in dtypes:
        for length in QUICK_LENGTHS if quick else LENGTHS:
            found += _timed(watch, operands, dtype, length)
            done()
    return found


def _timed(
    watch: Stopwatch, operands: Operands, dtype: torch.dtype, length: int
) -> list[Attention]:
    shape = (1, HEADS, length, WIDTH)
    query, key, value = (operands.hot(*shape, dtype=dtype).requires_grad_() for _ in range(3))
    out = scaled_dot_product_attention(query, key, value, is_causal=True)
    gradient = operands.hot(*shape, dtype=dtype)

    def forward() -> None:
        with torch.no_grad():
            scaled_dot_product_attention(query, key, value, is_causal=True)

    def backward() -> None:
        torch.autograd.grad(out, (query, key, value), gradient, retain_graph=True)

    found = []
    for call in (forward, backward):
        op = describe(call)
        if not op.flops:  # a step computes it from ops of their own
            continue
        found.append(
            Attention(
                op=op.name,
                dtype=str(dtype).removeprefix("torch."),
                intensity=op.flops / op.nbytes,
                flops=op.flops,
                seconds=watch.seconds(call),
            )
        )
    return found
