"""Paths of modules, so that alike ones are one: the layers of a stack, a layer and its adapter."""

from __future__ import annotations

import re
from collections.abc import Set

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
# `peft` puts a model into `base_model.model`.
_MODEL = re.compile(r"^base_model(\.model)?$|^(base_model\.)?(model\.)*((decoder|transformer)\.)?")


def alike(path: str) -> str:
    """A path with the numbers of its layers written as `*`.

    >>> alike("model.layers.12.mlp.fc1"), alike("0.bias")
    ('model.layers.*.mlp.fc1', '*.bias')
    """
    return _NUMBER.sub("*", path)


def plain(path: str, wrapped: Set[str] = frozenset()) -> str:
    """As `alike`, from the model's own modules on; what is in one of `wrapped` belongs to it.

    >>> plain("base_model.model.layers.3.fc1.lora_A.default", {"base_model.model.layers.3.fc1"})
    'layers.*.fc1'
    """
    parts = path.split(".")
    for length in range(1, len(parts)):
        if ".".join(parts[:length]) in wrapped:
            parts = parts[:length]
            break
    return alike(_MODEL.sub("", ".".join(parts)))


def own(path: str) -> str:
    """As `alike`, from the model's own modules on; a layer that an adapter wraps has its own name.

    >>> own("base_model.model.model.layers.3.fc1.base_layer"), own("model.layers.3.fc1")
    ('layers.*.fc1', 'layers.*.fc1')
    """
    return alike(_MODEL.sub("", path).removesuffix(".base_layer"))


def adapted(paths: Set[str]) -> set[str]:
    """The layers among the paths that an adapter wraps (`peft` moves them to `base_layer`)."""
    return {path.removesuffix(".base_layer") for path in paths if path.endswith(".base_layer")}
