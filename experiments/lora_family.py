"""The LoRA family on Llama-3.2-3B: where each variant saves or costs against LoRA.

LoRA, rsLoRA, LoRA-FA, LoRA+, DoRA, AdaLoRA and Delta-LoRA all have matrices of rank 16 on all
linear layers, with alpha 32; four sequences of 512 tokens on an L40S, on the Trainer's defaults. So
a difference against LoRA is the variant's own, with these things to know:

- There is no dropout anywhere. Delta-LoRA cannot have any (the change of its product would not be
  the gradient's), and dropout itself holds a mask and a second input for each layer.
- VeRA has a rank of its own, peft's default of 256: its two matrices are random, frozen and shared
  by all layers, so that one more rank is one more trained number in a layer, and not as many as the
  layer's two sides. peft's own advice is a rank higher than LoRA's.
- AdaLoRA holds rank 16 from the start. The ranks that it takes away are masked, not freed, so what
  it ends with (peft's default, 8 on average) changes no byte; the step shown reallocates.
- LoRA-FA and LoRA+ are LoRA under another optimizer, peft's; the others have the Trainer's fused
  AdamW.
- Every variant is run without autocast, the Trainer's default, and with `bf16=True`. peft makes the
  adapter in 32 bits over 16-bit weights, and without autocast each adapted layer's input is copied
  to 32 bits for it: a copy that LoRA keeps for A's gradient and LoRA-FA does not need. With
  autocast there is no such copy, and LoRA-FA saves about half as much.
"""

from __future__ import annotations

from profiler import RunSpec

#: What the report compares the others with.
BASELINE = "lora"

DEVICE = "l40s"
BATCH_SIZE = 4
SEQ_LEN = 512
RANK = 16

#: As `TrainingArguments` has it, and as `bf16=True` does.
AUTOCASTS = ("none", "bfloat16")

SAME = "lora_alpha=32,lora_dropout=0.0,target_modules=all-linear"

METHODS = (
    f"lora:r={RANK},{SAME}",
    f"rslora:r={RANK},{SAME}",
    f"lora-fa:r={RANK},{SAME}",
    f"lora-plus:r={RANK},{SAME}",
    f"dora:r={RANK},{SAME}",
    f"adalora:init_r={RANK},{SAME}",
    f"delta-lora:r={RANK},{SAME}",
    "vera:r=256,vera_dropout=0.0,target_modules=all-linear",
)


def study(quick: bool = False) -> list[RunSpec]:
    """Every variant on one GPU, in both precisions; quick: OPT-125M, a short batch."""
    model, batch_size, seq_len = (
        ("opt-125m", 1, 64) if quick else ("llama-3.2-3b", BATCH_SIZE, SEQ_LEN)
    )
    return [
        RunSpec(
            model=model,
            method=method,
            autocast=autocast,
            batch_size=batch_size,
            seq_len=seq_len,
            device=DEVICE,
        )
        for autocast in AUTOCASTS
        for method in METHODS
    ]
