"""LoRA (Hu et al., arXiv 2106.09685), its variants, QLoRA (Dettmers et al., arXiv 2305.14314)."""

from __future__ import annotations

from profiler.subject.methods.peft_method import ATTENTION, PeftMethod
from profiler.subject.methods.registry import register


@register("lora")
class Lora(PeftMethod):
    """Low-rank adapters on all linear layers; `use_dora`, `use_rslora` and the like are options."""

    peft_type = "LORA"
    per_module = True
    defaults = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}


@register("rslora")
class RsLora(Lora):
    """Rank-stabilised LoRA: scaled by alpha / sqrt(r) (Kalajdzievski, arXiv 2312.03732)."""

    defaults = {**Lora.defaults, "use_rslora": True}


@register("dora")
class Dora(Lora):
    """Weight-decomposed LoRA: a magnitude for each output is learned beside the direction
    (Liu et al., arXiv 2402.09353)."""

    defaults = {**Lora.defaults, "use_dora": True}


@register("lora-fa")
class LoraFa(Lora):
    """LoRA with every A frozen by the optimizer (Zhang et al., arXiv 2308.03303)."""

    optimizer = "lora-fa"


@register("lora-plus")
class LoraPlus(Lora):
    """LoRA whose B learns faster than its A, by the optimizer (Hayou et al., arXiv 2402.12354)."""

    optimizer = "lora-plus"


@register("qlora")
class QLora(PeftMethod):
    """LoRA on the attention projections of a 4-bit model, with a paged optimizer."""

    peft_type = "LORA"
    per_module = True
    defaults = {"r": 64, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": ATTENTION}
    quantization = "nf4-dq"
    kbit_prepare = "peft"
    optimizer = "paged-adamw-32bit"
