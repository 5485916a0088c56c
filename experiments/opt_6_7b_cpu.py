"""OPT-6.7B really run on a CPU with 24 GB: LoRA and QLoRA, beside their simulation.

One sequence of 128 tokens in bfloat16, weights random. LoRA holds the 12.4 GiB of 16-bit weights,
QLoRA a third of them.
"""

from __future__ import annotations

from profiler import RunSpec

METHODS = (
    "lora:r=8,lora_alpha=16,lora_dropout=0.05,target_modules=q_proj+v_proj",
    "qlora:r=64,lora_alpha=16,lora_dropout=0.1,target_modules=q_proj+k_proj+v_proj+out_proj",
)


def study(quick: bool = False) -> list[RunSpec]:
    """Both methods, measured and simulated; quick: the same on OPT-125M."""
    return [
        RunSpec(
            model="opt-125m" if quick else "opt-6.7b",
            method=method,
            batch_size=1,
            seq_len=128,
            device=device,
        )
        for method in METHODS
        for device in ("cpu", "sim:cpu")
    ]
