"""Updates that rotate or reflect the weights, or keep to a subspace of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.subject.methods.peft_method import PeftMethod, is_fake
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@register("oft")
class OFT(PeftMethod):
    """Block-diagonal rotations (Qiu et al., arXiv 2306.07280)."""

    peft_type = "OFT"
    per_module = True


@register("boft")
class BOFT(PeftMethod):
    """Rotations as a product of butterfly factors (Liu et al., arXiv 2311.06243)."""

    peft_type = "BOFT"
    per_module = True

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        """As any; in a simulation without the loop that writes permutation matrices, whose values
        nothing asks for (a minute at 3,072 features), and without compiling its CUDA extension,
        which runs on real tensors alone; peft does without it where it does not compile."""
        from peft.tuners.boft import layer

        whole, extension = layer.BOFTLayer.perm2mat, layer.get_fbd_cuda
        if is_fake(model):
            layer.BOFTLayer.perm2mat, layer.get_fbd_cuda = _unwritten, _no_extension
        try:
            return super().apply(model, config, adapter_dtype=adapter_dtype, device=device)
        finally:
            layer.BOFTLayer.perm2mat, layer.get_fbd_cuda = whole, extension


def _no_extension() -> None:
    """As `get_fbd_cuda` where the compiler is missing."""


def _unwritten(layer: Any, indices: Any) -> torch.Tensor:
    import torch

    return torch.empty(len(indices), len(indices))


@register("hra")
class HRA(PeftMethod):
    """Chains of Householder reflections (Yuan et al., arXiv 2405.17484)."""

    peft_type = "HRA"
    per_module = True


@register("psoft")
class PSOFT(PeftMethod):
    """A rotation inside the principal subspace (arXiv 2505.11235)."""

    peft_type = "PSOFT"
    per_module = True


@register("road")
class RoAd(PeftMethod):
    """Rotations in planes of pairs of features (Liao and Monz, arXiv 2409.00119)."""

    peft_type = "ROAD"
    per_module = True


@register("osf")
class OSF(PeftMethod):
    """Trains the low singular directions of the weight (Nayak et al., arXiv 2504.07097)."""

    peft_type = "OSF"


@register("frod")
class FRoD(PeftMethod):
    """Rotations of a joint decomposition, with sparse scales (AAAI 2026,
    doi 10.1609/aaai.v40i31.39813).
    """

    peft_type = "FROD"
    defaults = {"progressbar": False}
