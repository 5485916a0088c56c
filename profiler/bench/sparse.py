"""Sparse ops on fake tensors, which lose the number of entries where torch's own rules lose it.

Entries are taken to be distinct, as those of a mask or of a drawn choice without repetition are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


def _coo(indices: torch.Tensor, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = aten._sparse_coo_tensor_with_dims_and_tensors.default(
        like.sparse_dim(),
        like.dense_dim(),
        like.shape,
        indices,
        values,
        dtype=values.dtype,
        layout=torch.sparse_coo,
        device=values.device,
    )
    return made


def _mask(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The entries of a dense tensor that a sparse one has."""
    dense, mask = args
    values = torch.empty(mask._values().shape, dtype=dense.dtype, device=dense.device)
    return _coo(mask._indices().clone(), values, mask)


def _coalesce(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    (tensor,) = args
    return _coo(tensor._indices().clone(), tensor._values().clone(), tensor)


#: For `Rules.replace`.
REPLACE: dict[Any, Callable[..., Any]] = {
    aten.sparse_mask.default: _mask,
    aten._coalesce.default: _coalesce,
}
