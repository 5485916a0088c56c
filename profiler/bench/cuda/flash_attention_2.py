"""The flash-attention 2 package as shapes: its functions, for `transformers` to call.

The package imports only where there is CUDA. Its kernel is the one that torch carries, so torch's
op stands in: layout (batch, length, heads, head size), grouped key and value heads as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from profiler.errors import NotBuiltError

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
    out = aten._flash_attention_forward(
        q,
        k,
        v,
        None,
        None,
        q.size(1),
        k.size(1),
        dropout_p,
        causal,
        False,
        scale=softmax_scale,
    )
    result = out[0]
    assert isinstance(result, torch.Tensor)
    return result


@contextmanager
def installed() -> Iterator[None]:
    """Let `transformers` find the function, wherever this version of it looks.

    transformers 5 loads the package through `_lazy_imports` and remembers what it loaded; before,
    it imported the function by name (transformers/modeling_flash_attention_utils.py).
    """
    from transformers import modeling_flash_attention_utils as utils

    loaded = (flash_attn_func, _no_varlen, None, None, None)
    changes: dict[str, Any] = {
        "flash_attn_func": flash_attn_func,
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


def _no_varlen(
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
) -> torch.Tensor:
    raise NotBuiltError("flash_attention_2 over padded sequences is not built yet; use sdpa")
