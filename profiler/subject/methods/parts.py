"""Training parts of the model itself through peft: norms, biases, rows of the embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register("ln-tuning")
class LNTuning(PeftMethod):
    """Copies of the norms are trained (Zhao et al., arXiv 2312.11420)."""

    peft_type = "LN_TUNING"
    per_module = True


@register("beft")
class BEFT(PeftMethod):
    """A bias for each target's output (arXiv 2509.15974)."""

    peft_type = "BEFT"
    per_module = True


@register("trainable-tokens")
class TrainableTokens(PeftMethod):
    """Single rows of the embedding; without `token_indices`, the start and the end token's."""

    peft_type = "TRAINABLE_TOKENS"

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        if not options.get("token_indices"):
            ends = {getattr(model.config, f"{end}_token_id", None) for end in ("bos", "eos")}
            rows = model.get_input_embeddings().weight.shape[0]
            known = sorted(token for token in ends if isinstance(token, int) and token < rows)
            options = {**options, "token_indices": known or [0]}
        return super().config(options, model, given=given)
