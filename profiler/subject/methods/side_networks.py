"""Prompts and networks beside the model's layers."""

from __future__ import annotations

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register


@register("adaption-prompt")
class AdaptionPrompt(PeftMethod):
    """Gated prompts in the last layers' attention (LLaMA-Adapter, Zhang et al., arXiv 2303.16199).

    The paper's 10 prompts; in the two last layers unless told, as models here may have no more
    (the paper: 30 of 32).
    """

    peft_type = "ADAPTION_PROMPT"
    defaults = {"adapter_len": 10, "adapter_layers": 2}


@register("cartridge")
class Cartridge(PeftMethod):
    """A trained KV cache before the input (Eyuboglu et al., arXiv 2506.06266)."""

    peft_type = "CARTRIDGE"
    defaults = {"num_virtual_tokens": 30}

    def refuses(self, *, checkpointing: str) -> str:
        """Checkpointing drops the cache, and the mask that peft made for it fits no more."""
        if checkpointing == "none":
            return ""
        return "a cartridge does not work with gradient checkpointing; use --checkpointing none"


@register("shadow")
class Shadow(PeftMethod):
    """A small network that runs beside the frozen one (peft, `ShadowConfig`)."""

    peft_type = "SHADOW"
