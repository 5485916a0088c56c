"""Low-rank and factored updates of the weights beside LoRA; options and defaults are peft's."""

from __future__ import annotations

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register


@register("loha")
class LoHa(PeftMethod):
    """Hadamard product of two low-rank products (Hyeon-Woo et al., arXiv 2108.06098)."""

    peft_type = "LOHA"


@register("lokr")
class LoKr(PeftMethod):
    """Kronecker product of a small and a low-rank matrix (Yeh et al., arXiv 2309.14859)."""

    peft_type = "LOKR"
    per_module = True


@register("hira")
class HiRA(PeftMethod):
    """Hadamard product of the weight and a low-rank update (Huang et al., ICLR 2025)."""

    peft_type = "HIRA"
    per_module = True


@register("delora")
class DeLoRA(PeftMethod):
    """Low-rank update of bounded distance (Bini et al., arXiv 2503.18225)."""

    peft_type = "DELORA"
    per_module = True


@register("gralora")
class GraLoRA(PeftMethod):
    """A LoRA for each block of the weight (Jung et al., arXiv 2505.20355)."""

    peft_type = "GRALORA"
    per_module = True


@register("glora")
class GLoRA(PeftMethod):
    """Weights, biases and activations moved together (Chavan et al., arXiv 2306.07967)."""

    peft_type = "GLORA"
    per_module = True


@register("lily")
class Lily(PeftMethod):
    """A matrices by layer, B matrices shared by a router (Zhong et al., arXiv 2407.09946)."""

    peft_type = "LILY"


@register("miss")
class MiSS(PeftMethod):
    """One matrix, expanded over the shards of the weight (Kang and Yin, arXiv 2409.15371)."""

    peft_type = "MISS"
    per_module = True


@register("peanut")
class PEANuT(PeftMethod):
    """A small network of the weight gives its update (Zhong et al., arXiv 2410.01870)."""

    peft_type = "PEANUT"
    per_module = True


@register("deft")
class DEFT(PeftMethod):
    """Projects a subspace of the weight out and injects another (peft, `DeftConfig`)."""

    peft_type = "DEFT"
    per_module = True
