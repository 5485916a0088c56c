"""Values for the few fake tensors whose values decide what a step does.

A mask of ones is elided, positions that run on are not packed sequences: `transformers` asks such
questions of the tensors made from a batch's. A fake tensor has no values, so the batch carries real
tensors along (shadows), and every op whose inputs all have a small one is also run on the shadows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

#: Larger tensors are followed by shape alone (a causal mask of 1024 x 1024 just passes).
LIMIT = 1 << 20

_FACTORIES = frozenset(
    {
        aten.arange.default,
        aten.arange.start,
        aten.arange.start_step,
        aten.ones.default,
        aten.zeros.default,
        aten.full.default,
        aten.scalar_tensor.default,
    }
)
#: One random number decides, too (OPT's layer drop before transformers 4.50).
_DRAWS = frozenset({aten.rand.default})
_SCALARS = frozenset({aten._local_scalar_dense.default, aten.is_nonzero.default})


class Shadows:
    """Follows known values through the ops that run on them."""

    def __init__(self) -> None:
        self.enabled = True

    def attach(self, tensor: Any, value: torch.Tensor) -> None:
        """Say that the fake `tensor` has the values of the real `value`."""
        tensor._shadow = value

    def scalar(self, func: Any, args: tuple[Any, ...]) -> tuple[Any] | None:
        """The answer to `.item()` or `bool()` of a tensor with a shadow, in a tuple."""
        if func in _SCALARS:
            value = getattr(args[0], "_shadow", None)
            if value is not None:
                with no_dispatch():
                    return (value.item(),)
        return None

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Give `out` a shadow if all inputs have one (or it is a counter made from numbers)."""
        if not self.enabled:
            return
        first = args[0] if args else None
        if isinstance(first, torch.Tensor):
            if getattr(first, "_shadow", None) is None:
                return
        elif isinstance(first, (list, tuple)) and first and isinstance(first[0], torch.Tensor):
            if getattr(first[0], "_shadow", None) is None:
                return
        elif func not in _FACTORIES and not (func in _DRAWS and out.numel() == 1):
            return
        if not isinstance(out, torch.Tensor):
            return
        target: Any = out
        if out.numel() > LIMIT:
            if out is first:
                target._shadow = None
            return
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(getattr(tensor, "_shadow", None) is None for tensor in tensors):
            if out is first:  # written to with values that are not known
                target._shadow = None
            return
        real_args, real_kwargs = tree_map_only(
            torch.Tensor, lambda tensor: tensor._shadow, (args, kwargs)
        )
        if real_kwargs.get("device") is not None:
            real_kwargs = {**real_kwargs, "device": torch.device("cpu")}
        with no_dispatch():
            target._shadow = func(*real_args, **real_kwargs)
