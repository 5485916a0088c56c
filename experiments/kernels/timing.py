"""Milliseconds on a CUDA device by `triton.testing.do_bench`. No GPU has run this file yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import lora, nf4, reference
from .launching import pick
from .results import Timing
from .traffic import SHAPES, Shape

RANK = 16
QUANTILES = (0.5, 0.2, 0.8)


def device() -> str:
    """The CUDA device's name; empty where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def time_all(*, quick: bool = False) -> list[Timing]:
    """Both kernels beside what they stand for, in bfloat16, on the current CUDA device."""
    result = []
    for shape in SHAPES[:1] if quick else SHAPES:
        result += [_nf4(shape), _lora(shape)]
    return result


def _nf4(shape: Shape) -> Timing:
    import bitsandbytes
    import bitsandbytes.functional as bnb

    x, weight = _random(shape.rows, shape.depth), _random(shape.columns, shape.depth)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=nf4.BLOCK, quant_type="nf4", compress_statistics=True
    )
    return Timing(
        kernel="nf4_matmul",
        shape=_words(shape),
        tile=str(pick(nf4.TILES, shape.rows)),
        fused=_bench(lambda: nf4.nf4_matmul(x, packed, state)),
        separate=_bench(lambda: bitsandbytes.matmul_4bit(x, packed.t(), quant_state=state)),
    )


def _lora(shape: Shape) -> Timing:
    x, weight = _random(shape.rows, shape.depth), _random(shape.columns, shape.depth)
    a, b = _random(RANK, shape.depth), _random(shape.columns, RANK)
    return Timing(
        kernel="lora_linear",
        shape=_words(shape),
        tile=str(pick(lora.TILES, shape.rows)),
        fused=_bench(lambda: lora.lora_linear(x, weight, a, b, 2.0)),
        separate=_bench(lambda: reference.lora_linear(x, weight, a, b, 2.0)),
    )


def _bench(call: Callable[[], Any]) -> tuple[float, float, float]:
    from triton.testing import do_bench

    median, low, high = do_bench(call, quantiles=list(QUANTILES))
    return median, low, high


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.bfloat16, device="cuda")


def _words(shape: Shape) -> str:
    return f"{shape.layer}, {shape.rows} × {shape.columns} × {shape.depth}"
