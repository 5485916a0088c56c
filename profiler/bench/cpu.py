"""What CPU kernels return that fake tensors do not know.

Of recurrent layers the workspace: oneDNN decides how large it is, for this CPU and these sizes
(aten/src/ATen/native/mkldnn/RNN.cpp). So it is asked: the op is run once on zeros of the same
sizes, and its answer is kept. Of layer norms over mixed types, the statistics' type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

#: Bytes of the workspace by the op's arguments.
_ANSWERS: dict[Any, int] = {}


def _rnn_layer(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The last result is declared empty; a real one has what the backward needs."""
    *results, workspace = func(*args, **kwargs)
    if not torch.is_grad_enabled():  # it is kept for a backward only
        return (*results, workspace)
    return (*results, torch.empty(_workspace(func, args, kwargs), dtype=torch.uint8))


def _layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Over 16-bit inputs, float32 parameters make mean and reciprocal deviation float32, and
    others that differ from the input are refused (aten/src/ATen/native/cpu/mixed_data_type.h)."""
    out, mean, rstd = func(*args, **kwargs)
    parameters = [one for one in args[2:4] if one is not None and one.dtype != args[0].dtype]
    if parameters:
        if any(one.dtype != torch.float32 for one in parameters):
            raise RuntimeError("mixed dtype (CPU): expect parameter to have scalar type of Float")
        mean, rstd = (torch.empty(one.shape, dtype=torch.float32) for one in (mean, rstd))
    return out, mean, rstd


#: As `profiler.bench.cuda.kernels.REPLACE`, for this CPU.
REPLACE: dict[Any, Any] = {
    aten.mkldnn_rnn_layer.default: _rnn_layer,
    aten.native_layer_norm.default: _layer_norm,
}


def _workspace(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    key = tuple(_described(leaf) for leaf in tree_leaves((args, kwargs)))
    if key not in _ANSWERS:
        with no_dispatch(), torch.enable_grad():
            real_args, real_kwargs = tree_map_only(torch.Tensor, _zeros, (args, kwargs))
            _ANSWERS[key] = op(*real_args, **real_kwargs)[-1].untyped_storage().nbytes()
    return _ANSWERS[key]


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype)


def _described(leaf: Any) -> Any:
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf
