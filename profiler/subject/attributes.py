"""Tensors that a module holds and does not say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def attributes(module: torch.nn.Module) -> Iterator[tuple[Any, Any, torch.Tensor]]:
    """Tensors that a module keeps as plain attributes, or in a dict that is one."""
    own = vars(module)
    for key, value in list(own.items()):
        if isinstance(value, torch.Tensor):
            yield own, key, value
        elif type(value) is dict and key not in ("_parameters", "_buffers", "_modules"):
            for inner, item in list(value.items()):
                if isinstance(item, torch.Tensor):
                    yield value, inner, item
