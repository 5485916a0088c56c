"""The decoder layers of a model, found by structure: families name them differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiler.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: Names that `transformers` gives to a decoder layer's attention module.
ATTENTION_MODULES = frozenset({"self_attn", "attn", "self_attention", "attention"})


def decoder_layers(model: PreTrainedModel) -> list[tuple[str, torch.nn.Module]]:
    """Paths and modules of the decoder layers, first to last.

    They are the outermost module list that is as long as the model's config says.

    Raises:
        UnsupportedError: there is none.
    """
    import torch

    count = model.config.get_text_config().num_hidden_layers
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return [(f"{path}.{name}", layer) for name, layer in module.named_children()]
    raise UnsupportedError(f"{type(model).__name__} has no list of {count} decoder layers")


def is_norm(module: torch.nn.Module) -> bool:
    """Whether a module is a normalisation layer: by its class's name, since each family of
    `transformers` has a class of its own for RMSNorm."""
    name = type(module).__name__.lower()
    return name.endswith("norm") and any(True for _ in module.parameters(recurse=False))
