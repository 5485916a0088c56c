"""Adapters whose large matrices are random or shared, and whose own vectors are small."""

from __future__ import annotations

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register


@register("vera")
class VeRA(PeftMethod):
    """Random frozen A and B for all layers, two trained vectors each (Kopiczko et al.,
    arXiv 2310.11454).
    """

    peft_type = "VERA"


@register("pvera")
class PVeRA(PeftMethod):
    """VeRA with vectors that are drawn (arXiv 2512.07703)."""

    peft_type = "PVERA"


@register("randlora")
class RandLoRA(PeftMethod):
    """Sums of random low-rank bases with trained scales (Albert et al., arXiv 2502.00987)."""

    peft_type = "RANDLORA"


@register("vblora")
class VBLoRA(PeftMethod):
    """Low-rank matrices made of a shared bank of vectors (Li et al., arXiv 2405.15179)."""

    peft_type = "VBLORA"


@register("tinylora")
class TinyLoRA(PeftMethod):
    """A few trained numbers through a random projection (arXiv 2602.04118)."""

    peft_type = "TINYLORA"


@register("unilora")
class UniLoRA(PeftMethod):
    """One trained vector that all layers index into (arXiv 2506.00799)."""

    peft_type = "UNILORA"
