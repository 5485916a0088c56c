"""Matrix products over a grid of sizes, from a low-rank adapter's to a layer's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from profiler.calibration.operands import Operands
from profiler.calibration.timing import Stopwatch
from profiler.hardware.device_profile import Layout, Product

LAYOUTS: tuple[Layout, ...] = ("nn", "nt", "tn")

#: Sizes of each of m, n and k. Beyond the last a product's rate no longer changes much.
SIZES = (4, 16, 64, 256, 1024)
QUICK_SIZES = (16, 128)
#: The same of each matrix of a batch, as eager attention has them.
BATCHED_SIZES = (16, 64, 256)
BATCH = 16


def points(*, quick: bool) -> list[tuple[str, Layout, int, int, int, int]]:
    """(op, layout, batch, m, n, k) of every product that is timed."""
    sizes = QUICK_SIZES if quick else SIZES
    batched = QUICK_SIZES if quick else BATCHED_SIZES
    made: list[tuple[str, Layout, int, int, int, int]] = [
        ("mm", layout, 1, m, n, k)
        for layout in LAYOUTS
        for m, n, k in itertools.product(sizes, repeat=3)
    ]
    made += [("bmm", "nn", BATCH, m, n, k) for m, n, k in itertools.product(batched, repeat=3)]
    return made


def measure(
    watch: Stopwatch,
    operands: Operands,
    dtypes: tuple[torch.dtype, ...],
    *,
    quick: bool,
    done: Callable[[], None] = lambda: None,
) -> list[Product]:
    """Time every product of `points` for each dtype; `done` is called after each."""
    found = []
    for dtype in dtypes:
        for op, layout, batch, m, n, k in points(quick=quick):
            call = operands.call(*_product(operands, op, layout, batch, m, n, k, dtype))
            found.append(
                Product(
                    op=op,
                    dtype=str(dtype).removeprefix("torch."),
                    layout=layout,
                    batch=batch,
                    m=m,
                    n=n,
                    k=k,
                    seconds=watch.seconds(call),
                )
            )
            done()
    return found


def _product(
    operands: Operands,
    op: str,
    layout: Layout,
    batch: int,
    m: int,
    n: int,
    k: int,
    dtype: torch.dtype,
) -> tuple[Callable[..., Any], torch.Tensor, Iterator[torch.Tensor]]:
    """A product's function, its first factor and its second ones."""
    if op == "bmm":
        first = operands.hot(batch, m, k, dtype=dtype)
        return torch.bmm, first, operands.cold(batch, k, n, dtype=dtype)
    shape = (k, m) if layout == "tn" else (m, k)
    first = operands.hot(*shape, dtype=dtype)
    if layout == "tn":
        first = first.t()
    if layout == "nt":
        return _times_transposed, first, operands.cold(n, k, dtype=dtype)
    return torch.mm, first, operands.cold(k, n, dtype=dtype)


def _times_transposed(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.mm(first, second.t())
