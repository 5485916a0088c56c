"""The products of packed weights, as ops of bitsandbytes: their FLOPs, and what they multiply."""

from __future__ import annotations

from typing import Any

#: Ops whose factors are of another type than their first tensor: what a card's rate is looked up
#: by. The 4-bit product unpacks its weight to its input's type first, which is its result's.
FACTORS = {"bitsandbytes.int8_mixed_scaled_mm": "int8"}


def register_flops() -> None:
    """Give them the FLOPs of the product that they stand for, 2 M N K; at once if they have."""
    import bitsandbytes  # defines the ops
    import torch
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    del bitsandbytes

    def gemm_4bit(
        a: Any, b: Any, shape: Any, *args: Any, out_val: Any = None, **kwargs: Any
    ) -> int:
        return 2 * a.numel() * int(shape[0])

    def int8_mixed_scaled_mm(
        a: Any, ca: Any, cb: Any, *args: Any, out_val: Any = None, **kwargs: Any
    ) -> int:
        return 2 * ca.numel() * int(cb.shape[0])

    for formula in (gemm_4bit, int8_mixed_scaled_mm):
        packet = getattr(torch.ops.bitsandbytes, formula.__name__, None)
        if packet is not None and packet not in flop_registry:
            register_flop_formula(packet, get_raw=True)(formula)
