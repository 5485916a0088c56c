"""The products of packed weights, as ops of bitsandbytes: what they multiply."""

from __future__ import annotations

#: Ops whose factors are of another type than their first tensor: what a card's rate is looked up
#: by. The 4-bit product unpacks its weight to its input's type first, which is its result's.
FACTORS = {"bitsandbytes.int8_mixed_scaled_mm": "int8"}
