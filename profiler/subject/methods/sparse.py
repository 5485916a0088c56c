"""Training a few entries of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError
from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    import torch


@register("shira")
class SHiRA(PeftMethod):
    """A random, sparse choice of entries, as many as LoRA trains (Bhardwaj et al., arXiv
    2406.13175).
    """

    peft_type = "SHIRA"
    per_module = True

    def prepare(self, peft_config: Any, *, simulated: bool) -> None:
        """In a simulation, where it does not matter which entries: as many, without a draw."""
        if simulated and peft_config.mask_type == "random":
            peft_config.mask_fn = _as_many


def _as_many(base_layer: torch.nn.Module, r: int, **kwargs: Any) -> torch.Tensor:
    """A mask of as many ones as peft's `random_mask` has; only their indices are kept."""
    import torch

    features = int(base_layer.in_features) + int(base_layer.out_features)
    return torch.ones(1, r * features, dtype=torch.bool, device="cpu")


@register("supertuning")
class SuperTuning(PeftMethod):
    """The entries of the largest magnitude (arXiv 2607.09287)."""

    peft_type = "SUPERTUNING"


@register("adamss")
class AdaMSS(PeftMethod):
    """Clusters of the weight's singular subspaces (peft, `AdamssConfig`)."""

    peft_type = "ADAMSS"

    def prepare(self, peft_config: Any, *, simulated: bool) -> None:
        """Refuse a simulation: no size of what is trained is known without values."""
        if simulated:
            raise UnsupportedError(
                "AdaMSS sizes its parameters by clustering the weights' values, which a "
                "simulation does not have; measure it with --device cpu"
            )
