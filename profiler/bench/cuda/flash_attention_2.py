"""The flash-attention 2 package as shapes: its functions, for `transformers` to call.

The package imports only where there is CUDA. Its kernel is the one that torch carries, so torch's
op stands in: layout (batch, length, heads, head size), or (tokens, heads, head size) for sequences
joined without padding; grouped key and value heads as they are. Read in flash-attention 2.8
(flash_attn/flash_attn_interface.py, flash_attn/bert_padding.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

aten = torch.ops.aten


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    **ignored: Any,
) -> torch.Tensor:
    """`flash_attn.flash_attn_func`; window and other masks change no size."""
    return _attend(q, k, v, None, None, q.size(1), k.size(1), dropout_p, softmax_scale, causal)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    **ignored: Any,
) -> torch.Tensor:
    """`flash_attn.flash_attn_varlen_func`: sequences joined into one of all their tokens."""
    most = int(max_seqlen_q), int(max_seqlen_k)
    return _attend(q, k, v, cu_seqlens_q, cu_seqlens_k, *most, dropout_p, softmax_scale, causal)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor | None,
    starts_k: torch.Tensor | None,
    most_q: int,
    most_k: int,
    dropout: float,
    scale: float | None,
    causal: bool,
) -> torch.Tensor:
    head = q.size(-1)
    if head % 8:  # `FlashAttnFunc.forward` pads each of them
        scale = scale if scale is not None else 1 / math.sqrt(head)
        q, k, v = (torch.nn.functional.pad(item, (0, 8 - head % 8)) for item in (q, k, v))
    out = aten._flash_attention_forward(
        q, k, v, starts_q, starts_k, most_q, most_k, dropout, causal, False, scale=scale
    )
    result = out[0]
    assert isinstance(result, torch.Tensor)
    return result[..., :head] if head % 8 else result


class _IndexFirstAxis(torch.autograd.Function):
    """The rows of the tokens; a gather, whose backward scatters into zeros."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(indices)
        ctx.first, rest = input.shape[0], input.shape[1:]
        width = rest.numel()
        index = indices.unsqueeze(1).expand(-1, width)
        return torch.gather(input.reshape(ctx.first, width), 0, index).reshape(-1, *rest)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (indices,) = ctx.saved_tensors
        rest = grads[0].shape[1:]
        width = rest.numel()
        grad = grads[0].reshape(grads[0].shape[0], width)
        out = torch.zeros([ctx.first, width], dtype=grad.dtype, device=grad.device)
        out.scatter_(0, indices.unsqueeze(1).expand(-1, width), grad)
        return out.reshape(ctx.first, *rest), None


class _IndexPutFirstAxis(torch.autograd.Function):
    """The tokens' rows put among zeros."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, indices: torch.Tensor, first: int) -> torch.Tensor:
        ctx.save_for_backward(indices)
        out = torch.zeros(first, *values.shape[1:], device=values.device, dtype=values.dtype)
        out[indices] = values
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (indices,) = ctx.saved_tensors
        return grads[0][indices], None, None


def index_first_axis(input: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """`flash_attn.bert_padding.index_first_axis`."""
    result = _IndexFirstAxis.apply(input, indices)
    assert isinstance(result, torch.Tensor)
    return result


def pad_input(
    hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int
) -> torch.Tensor:
    """`flash_attn.bert_padding.pad_input`: (tokens, ...) to (batch, length, ...)."""
    padded = _IndexPutFirstAxis.apply(hidden_states, indices, batch * seqlen)
    assert isinstance(padded, torch.Tensor)
    return padded.view(batch, seqlen, *padded.shape[1:])


def unpad_input(
    hidden_states: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """`flash_attn.bert_padding.unpad_input`: (batch, length, ...) to (tokens, ...)."""
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = torch.nonzero(attention_mask.flatten(), as_tuple=False).flatten()
    most = int(lengths.max().item())
    starts = torch.nn.functional.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))
    rows = hidden_states.reshape(-1, *hidden_states.shape[2:])
    return index_first_axis(rows, indices), indices, starts, most, lengths


@contextmanager
def installed() -> Iterator[None]:
    """Let `transformers` find the functions, wherever this version of it looks.

    transformers 5 loads the package through `_lazy_imports` and remembers what it loaded; before,
    it imported the functions by name (transformers/modeling_flash_attention_utils.py).
    """
    from transformers import modeling_flash_attention_utils as utils

    loaded = (flash_attn_func, flash_attn_varlen_func, None, pad_input, unpad_input)
    changes: dict[str, Any] = {
        "flash_attn_func": flash_attn_func,
        "flash_attn_varlen_func": flash_attn_varlen_func,
        "index_first_axis": index_first_axis,
        "pad_input": pad_input,
        "unpad_input": unpad_input,
        "_flash_supports_window_size": False,
        "_lazy_imports": lambda *args, **kwargs: loaded,
        "_loaded_implementation": None,
        "_flash_fn": None,
        "_process_flash_kwargs_fn": None,
    }
    missing = object()
    before = {name: vars(utils).get(name, missing) for name in changes}
    for name, value in changes.items():
        setattr(utils, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                delattr(utils, name)
            else:
                setattr(utils, name, value)
