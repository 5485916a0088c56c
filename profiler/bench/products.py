"""Products of mixed types, which fake tensors let pass and every real kernel refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


def _same(func: Any, args: tuple[Any, ...]) -> None:
    """Raises `RuntimeError` if an op's tensors are not of one type, as a real kernel does
    (aten/src/ATen/native/LinearAlgebra.cpp)."""
    first = args[0].dtype
    for other in args[1:]:
        if isinstance(other, torch.Tensor) and other.dtype != first:
            raise RuntimeError(
                f"{func._schema.name} of mixed types: {_name(first)} and {_name(other.dtype)}"
            )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


#: For `Rules.check`.
CHECK: dict[Any, Callable[..., None]] = dict.fromkeys(
    (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default), _same
)
