"""OPT-6.7B: full fine-tuning, LoRA, QLoRA, P-tuning and their like on three GPUs.

The published column states neither batch nor length. One sequence of 128 tokens, on the Trainer's
defaults, is what reproduces it: reserved memory of 50.9 GiB for full fine-tuning (published about
50), 14.1 GB for LoRA r8 (14), 6.1 GB for QLoRA (6) and 13.0 GiB for P-tuning (13). LoRA r64 is the
exception, 14.4 GB against about 16: no batch gives both LoRA rows, because their ranks differ by
29 million parameters, or 0.5 GB with gradients and Adam's moments, and not by 2 GB. At 512 tokens
LoRA r64 is at 16.4 GB, but then LoRA r8 is at 16.0 and QLoRA at 9.6.

The Trainer's default optimizer is fused. The plain one (`--optimizer adamw`) takes the square roots
of all second moments at once, and full fine-tuning then reserves 62.9 GiB.
"""

from __future__ import annotations

from profiler import RunSpec

BATCH_SIZE = 1
SEQ_LEN = 128

DEVICES = ("rtx-4090", "l40s", "a100-80gb")

LORA = "lora_alpha=16,lora_dropout=0.05,target_modules=q_proj+v_proj"
QLORA = "r=64,lora_alpha=16,lora_dropout=0.1,target_modules=q_proj+k_proj+v_proj+out_proj"

#: The source computes in float16 where the weights are 4-bit.
GPU_FLOAT16 = (f"qlora:{QLORA}",)

METHODS = (
    "full",
    f"lora:r=8,{LORA}",
    f"lora:r=64,{LORA}",
    f"qlora:{QLORA}",
    "p-tuning",
    "prompt-tuning",
    "ia3",
    "bitfit",
)


#: Really run here beside its simulation, on the smallest of the family.
MEASURED_METHODS = (f"lora:r=8,{LORA}", f"qlora:{QLORA}")


def study(quick: bool = False) -> list[RunSpec]:
    """Every method on every GPU, and a small measured part; quick: OPT-125M on one GPU."""
    model, devices = ("opt-125m", DEVICES[:1]) if quick else ("opt-6.7b", DEVICES)
    simulated = [(model, method, device) for method in METHODS for device in devices]
    measured = [
        ("opt-125m", method, device) for method in MEASURED_METHODS for device in ("cpu", "sim:cpu")
    ]
    return [
        RunSpec(
            model=model,
            method=method,
            # A CPU computes slowly in float16.
            compute_dtype="float16" if method in GPU_FLOAT16 and "cpu" not in device else None,
            batch_size=BATCH_SIZE,
            seq_len=SEQ_LEN,
            device=device,
        )
        for model, method, device in (*simulated, *([] if quick else measured))
    ]
