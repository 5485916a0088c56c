"""Context-aware prompt tuning (Blau et al., arXiv 2410.17222)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register("cpt")
class CPT(PeftMethod):
    """Trained changes to the embeddings of a context of examples.

    Without `cpt_token_ids`, a context of 20 tokens: one example, its first half input (type 2), the
    rest label (type 4), all of them used.
    """

    peft_type = "CPT"

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        if not options.get("cpt_token_ids"):
            options = {
                "cpt_token_ids": list(range(20)),
                "cpt_mask": [1] * 20,
                "cpt_tokens_type_mask": [2] * 10 + [4] * 10,
                **options,
            }
        return super().config(options, model, given=given)
