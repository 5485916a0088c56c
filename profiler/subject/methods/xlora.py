"""X-LoRA: a mixture of trained LoRA adapters (Buehler and Buehler, arXiv 2402.07148)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError
from profiler.subject.methods.peft_method import PeftMethod, is_fake
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@register("xlora")
class XLora(PeftMethod):
    """A small network that weighs adapters token by token; the adapters themselves are frozen.

    Its option `adapters` names folders of saved LoRA adapters: `adapters={"0":"path","1":"path"}`.
    """

    peft_type = "XLORA"

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        if not options.get("adapters"):
            raise UnsupportedError(
                "X-LoRA mixes saved LoRA adapters: give their folders, such as "
                'adapters={"0":"path","1":"path"}'
            )
        options = {"hidden_size": model.config.hidden_size, **options}
        return super().config(options, model, given=given)

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        """As any; a simulation reads the adapters' files outside its mode, as real tensors."""
        from peft.utils import save_and_load
        from torch.utils._python_dispatch import _disable_current_modes

        read = save_and_load.load_peft_weights

        def read_real(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return read(*args, **kwargs)

        if is_fake(model):
            save_and_load.load_peft_weights = read_real
        try:
            return super().apply(model, config, adapter_dtype=adapter_dtype, device=device)
        finally:
            save_and_load.load_peft_weights = read
