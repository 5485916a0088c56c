"""What the kernels compute, in plain PyTorch: slow, plain to see, on any device."""

from __future__ import annotations

from typing import Any

import torch


def nf4_dequantize(packed: torch.Tensor, state: Any, dtype: torch.dtype) -> torch.Tensor:
    """The weight of shape `state.shape`, from bytes and tables alone.

    The values of NF4 are the `code` of its state (QLoRA, Dettmers et al. 2023, appendix E).
    """
    nibbles = torch.stack((packed.flatten() >> 4, packed.flatten() & 15), dim=1).flatten()
    absmax = state.absmax
    if state.state2 is not None:
        nested = state.state2
        scale = nested.absmax.repeat_interleave(nested.blocksize)[: absmax.numel()]
        absmax = nested.code[absmax.int()] * scale + state.offset
    numbers = state.shape.numel()
    scale = absmax.repeat_interleave(state.blocksize)[:numbers]
    return (state.code[nibbles[:numbers].int()] * scale).to(dtype).reshape(state.shape)


def nf4_matmul(x: torch.Tensor, packed: torch.Tensor, state: Any) -> torch.Tensor:
    """`x W^T` in x's dtype: what `bitsandbytes.matmul_4bit` gives for (M, K) activations."""
    return x @ nf4_dequantize(packed, state, x.dtype).T


def lora_linear(
    x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float
) -> torch.Tensor:
    """`x W^T + s (x A^T) B^T` in x's dtype, in the order that `peft` runs it."""
    return x @ weight.T + (x @ a.T) @ b.T * scaling
