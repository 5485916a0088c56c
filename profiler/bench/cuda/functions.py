"""Functions of `torch.nn.functional` that take another way on a CUDA device, as replacements.

They are replaced for the run rather than intercepted: a function mode is not active in a backward,
and a checkpoint's recomputation runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from profiler.bench.cuda import autocast
from profiler.bench.cuda.attention import scaled_dot_product_attention

aten = torch.ops.aten


def dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """The fused kernel with a boolean mask (aten/src/ATen/native/Dropout.cpp,
    `is_fused_kernel_acceptable`); a CPU multiplies by a noise of the input's dtype."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        return input.mul_(0) if inplace else input * 0
    out = torch.native_dropout(input, p, True)[0]
    return input.copy_(out) if inplace else out


def _with_fused_cast(original: Callable[..., torch.Tensor], op: Any) -> Callable[..., torch.Tensor]:
    """Softmax of a half tensor into float32 in one kernel (aten/src/ATen/native/SoftMax.cpp)."""

    def softmax(
        input: torch.Tensor,
        dim: int | None = None,
        _stacklevel: int = 3,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        if dim is not None and input.dtype == torch.float16 and dtype == torch.float32:
            result = op(input, dim, True)
            assert isinstance(result, torch.Tensor)
            return result
        return original(input, dim=dim, _stacklevel=_stacklevel, dtype=dtype)

    return softmax


def _under_autocast(attention: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Attention of inputs that autocast has cast; the op itself is in its list."""

    def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        dtype = autocast.active()
        if dtype is None:
            return attention(*args, **kwargs)
        args, kwargs = tree_map_only(
            torch.Tensor, lambda tensor: autocast.cast(tensor, dtype), (args, kwargs)
        )
        with autocast.suspended():
            return attention(*args, **kwargs)

    return scaled_dot_product_attention


@contextmanager
def replaced(capability: tuple[int, int], sdpa_backend: str) -> Iterator[None]:
    """Put the replacements in place while the context lasts."""
    functional: Any = torch.nn.functional
    changes = {
        "scaled_dot_product_attention": _under_autocast(
            scaled_dot_product_attention(capability, sdpa_backend)
        ),
        "dropout": dropout,
        "softmax": _with_fused_cast(functional.softmax, aten._softmax),
        "log_softmax": _with_fused_cast(functional.log_softmax, aten._log_softmax),
    }
    before = {name: getattr(functional, name) for name in changes}
    for name, function in changes.items():
        setattr(functional, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(functional, name, function)
