"""Ops whose CUDA kernel returns other sizes than the CPU's: an implementation on fake tensors."""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten


def _layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Mean and reciprocal deviation in float32 for 16-bit inputs
    (aten/src/ATen/native/cuda/layer_norm_kernel.cu, `layer_norm_cuda`)."""
    out, mean, rstd = func(*args, **kwargs)
    if mean.dtype in (torch.float16, torch.bfloat16):
        mean = torch.empty(mean.shape, dtype=torch.float32)
        rstd = torch.empty(rstd.shape, dtype=torch.float32)
    return out, mean, rstd


REPLACE: dict[Any, Any] = {
    aten.native_layer_norm.default: _layer_norm,
}

#: Outputs that stay on the host: the seed and the offset of random numbers, outside of a graph
#: capture (aten/src/ATen/native/transformers/cuda/attention.cu, `_efficient_attention_forward`,
#: "Seed and Offset Device"); and the second random state that torch's flash-attention op returns,
#: which the package's kernel, for which the op stands in, has not (flash_attn/flash_api.cpp).
ON_HOST: dict[Any, frozenset[int]] = {
    aten._scaled_dot_product_efficient_attention.default: frozenset({2, 3}),
    aten._flash_attention_forward.default: frozenset({3}),
}
