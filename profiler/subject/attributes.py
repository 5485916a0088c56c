"""Tensors that a module holds and does not say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

#: What every module has; none of it is a tensor of its own.
_USUAL = frozenset(vars(torch.nn.Module()))


def attributes(module: torch.nn.Module) -> Iterator[tuple[Any, Any, torch.Tensor]]:
    """Tensors that a module keeps as plain attributes, or in a dict that is one."""
    own = vars(module)
    for key in [name for name in own if name not in _USUAL]:
        value = own[key]
        if isinstance(value, torch.Tensor):
            yield own, key, value
        elif type(value) is dict:
            for inner, item in list(value.items()):
                if isinstance(item, torch.Tensor):
                    yield value, inner, item
