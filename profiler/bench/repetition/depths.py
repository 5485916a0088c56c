"""The same cell with fewer layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from profiler.bench.repetition.errors import NotPeriodicError
from profiler.errors import ProfilerError
from profiler.resolve import Cell
from profiler.subject import models
from profiler.subject.models import ModelSource

#: What `transformers` calls the number of layers, whatever a model's config calls it.
_LAYERS = "num_hidden_layers"


def layer_count(config: Any) -> int:
    """Layers of a model by its config.

    Raises:
        NotPeriodicError: it does not say.
    """
    count = getattr(config, _LAYERS, None)
    if not isinstance(count, int):
        raise NotPeriodicError("the model's config does not say how many layers it has")
    return count


def at_depth(cell: Cell, config: Any, depth: int, *, resolved: bool) -> Cell:
    """The cell with its model's first `depth` layers alone.

    Args:
        config: of the whole model.
        resolved: whether the method's configuration is the whole model's, too.

    Raises:
        NotPeriodicError: the method, or the library, does not take the shorter model.
    """
    count = layer_count(config)
    name = getattr(config, "attribute_map", {}).get(_LAYERS, _LAYERS)
    fields = {
        key: value[:depth] if isinstance(value, list) and len(value) == count else value
        for key, value in cell.model.config.items()
        if key not in (name, _LAYERS)
    }
    source = ModelSource(cell.model.name, {**fields, name: depth})
    if resolved:
        return dataclasses.replace(cell, model=source)
    choice = cell.method
    try:
        base = models.build(source, dtype=torch.bfloat16, attention=cell.spec.attention)
        adapted = choice.method.config(choice.options, base, given=choice.given)
    except ProfilerError as error:
        raise NotPeriodicError(f"not with {depth} layers: {error}") from None
    return dataclasses.replace(cell, model=source, config=adapted)
