"""bitsandbytes' kernels, where it is installed: what quantised layers add to a step."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import torch

from profiler.calibration.described import describe
from profiler.calibration.timing import Stopwatch
from profiler.hardware.device_profile import Curve, Product

#: Rows (tokens), and each of the two sizes of a weight.
TOKENS = (16, 64, 256)
WIDTHS = (256, 1024, 2048)
QUICK_TOKENS = (16,)
QUICK_WIDTHS = (64, 128)


def measure(
    watch: Stopwatch, dtypes: tuple[torch.dtype, ...], *, quick: bool
) -> tuple[list[Product], list[Curve]]:
    """Products over nf4 weights, and what unpacks nf4 and int8; nothing without bitsandbytes."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return [], []
    products: list[Product] = []
    points: dict[tuple[str, str], dict[int, float]] = {}
    widths = QUICK_WIDTHS if quick else WIDTHS
    for dtype in dtypes:
        for n, k in itertools.product(widths, repeat=2):
            layer = _layer(n, k, dtype)
            for tokens in QUICK_TOKENS if quick else TOKENS:
                products += _product(watch, layer, tokens, n, k, dtype)
            for call in (_unpacking(layer, dtype), _unpacking_int8(n, k)):
                op = describe(call)
                points.setdefault((op.name, op.dtype), {})[op.nbytes] = watch.seconds(call)
    curves = [
        Curve(op=op, dtype=dtype, points=sorted(found.items()))
        for (op, dtype), found in sorted(points.items())
    ]
    return products, curves


def _layer(n: int, k: int, dtype: torch.dtype) -> Any:
    """A linear layer from k to n in nf4, its quantisation's constants quantised as well."""
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(
        k, n, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True
    )
    layer.weight = bnb.nn.Params4bit(
        torch.randn(n, k).to(dtype), requires_grad=False, quant_type="nf4"
    )
    return layer.to("cpu").train()


def _product(
    watch: Stopwatch, layer: Any, tokens: int, n: int, k: int, dtype: torch.dtype
) -> list[Product]:
    source = torch.randn(tokens, k).to(dtype)

    def call() -> None:
        layer(source)

    op = describe(call)
    if not op.name.startswith("bitsandbytes."):
        return []  # it unpacks the weight and multiplies as other layers do
    return [
        Product(
            op=op.name,
            dtype=op.dtype,
            layout="nt",
            batch=1,
            m=tokens,
            n=n,
            k=k,
            seconds=watch.seconds(call),
        )
    ]


def _unpacking(layer: Any, dtype: torch.dtype) -> Callable[[], Any]:
    from bitsandbytes.functional import dequantize_4bit

    weight = layer.weight
    return lambda: dequantize_4bit(weight.data, weight.quant_state).to(dtype)


def _unpacking_int8(n: int, k: int) -> Callable[[], Any]:
    from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

    packed, state = quantize_blockwise(torch.randn(n, k))
    return lambda: dequantize_blockwise(packed, state)
