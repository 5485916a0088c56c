"""Soft prompts: virtual tokens that are trained while the model is frozen."""

from __future__ import annotations

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register


@register("prompt-tuning")
class PromptTuning(PeftMethod):
    """Trained embeddings before the input (Lester et al., arXiv 2104.08691)."""

    peft_type = "PROMPT_TUNING"
    defaults = {"num_virtual_tokens": 20}


@register("p-tuning")
class PTuning(PeftMethod):
    """Virtual tokens through an MLP encoder (Liu et al., arXiv 2103.10385).

    `encoder_hidden_size` has no default in peft; 128 is the figure of peft's own guide
    (docs/source/task_guides/prompt_based_methods.md).
    """

    peft_type = "P_TUNING"
    defaults = {
        "num_virtual_tokens": 20,
        "encoder_reparameterization_type": "MLP",
        "encoder_hidden_size": 128,
    }


@register("prefix-tuning")
class PrefixTuning(PeftMethod):
    """Trained keys and values in every layer (Li and Liang, arXiv 2101.00190)."""

    peft_type = "PREFIX_TUNING"
    defaults = {"num_virtual_tokens": 30}

    def refuses(self, *, checkpointing: str) -> str:
        """As peft (peft/peft_model.py): checkpointing drops the cache that holds the prefix."""
        if checkpointing == "none":
            return ""
        return "prefix tuning does not work with gradient checkpointing; use --checkpointing none"
