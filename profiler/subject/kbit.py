"""What a stack casts of a quantised model, before and after the method is put on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Parts of the path of a module that TRL takes for an embedding or a head, and for a norm.
_EMBEDDINGS = ("lm_head", "embed_tokens", "wte", "wpe")
_NORM = "norm"


def prepare(model: Any, kbit_prepare: str, *, quantized: bool) -> Any:
    """Freeze and cast a loaded model as `RunSpec.kbit_prepare` says.

    `peft` is `prepare_model_for_kbit_training`: every 16-bit weight becomes float32. `trl` begins
    with that where the model is quantised, and `cast_back` ends it. Neither switches checkpointing
    on.
    """
    if kbit_prepare == "peft" or (kbit_prepare == "trl" and quantized):
        import peft

        return peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model


def cast_back(model: torch.nn.Module) -> None:
    """Norms to float32, float32 embeddings and heads to bfloat16, of a quantised adapted model.

    `peft_module_casting_to_bf16` (trl/experimental/utils.py), which `SFTTrainer` called after
    `get_peft_model` in its earlier versions, and TRL's ORPO and CPO trainers call still. It goes by
    names: OPT's `embed_positions` stay in float32, and BLOOM's `word_embeddings` follow the head
    that they are tied to.
    """
    import torch

    for path, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm) or _NORM in path:
            _cast(module, torch.float32)
        elif any(part in path for part in _EMBEDDINGS):
            weight = getattr(module, "weight", None)
            if weight is not None and weight.dtype == torch.float32:
                _cast(module, torch.bfloat16)


def _cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """As `Module.to`, which on the meta device cannot cast a tied weight."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def cast_trained(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast what is trained of a quantised model, as `SFTTrainer` does (trl/trainer/sft_trainer.py).

    Not DoRA's magnitudes, whose steps would be lost in 16 bits.
    """
    for path, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_magnitude_vector" not in path:
            parameter.data = parameter.data.to(dtype)
