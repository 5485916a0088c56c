"""LoRA (Hu et al., arXiv 2106.09685) and QLoRA (Dettmers et al., arXiv 2305.14314)."""

from __future__ import annotations

from profiler.subject.methods.peft_method import ATTENTION, PeftMethod
from profiler.subject.methods.registry import register


@register("lora")
class Lora(PeftMethod):
    """Low-rank adapters on all linear layers; `use_dora`, `use_rslora` and the like are options."""

    peft_type = "LORA"
    defaults = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}


@register("qlora")
class QLora(PeftMethod):
    """LoRA on the attention projections of a 4-bit model, with a paged optimizer."""

    peft_type = "LORA"
    defaults = {"r": 64, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": ATTENTION}
    quantization = "nf4-dq"
    kbit_prepare = "peft"
    optimizer = "paged-adamw-32bit"
