"""Simulated against measured by others on a real T4.

fitcheck-llm 0.2.0 (PyPI; github.com/Anassbzdd/fitcheck, fitcheck.ipynb and scripts/measure.py):
QLoRA nf4 r32 on q, k, v, o, float16, k-bit preparation, non-reentrant checkpointing, torch's AdamW,
one measured step after a warm-up; `torch.cuda.max_memory_allocated` by phase, in MiB.
"""

from __future__ import annotations

import pytest

from profiler.execute import run
from profiler.spec import RunSpec

MIB = 2**20

#: model, batch, length, attention; forward, backward, optimizer (MiB).
T4 = [
    ("tinyllama-1.1b", 2, 512, "eager", (1607, 1849, 1370)),
    ("tinyllama-1.1b", 2, 2048, "eager", (4081, 6655, 1793)),
    ("tinyllama-1.1b", 2, 1024, "sdpa", (2044, 2528, 1511)),
    ("smollm2-1.7b", 4, 1024, "eager", (3793, 5297, 2337)),
    ("smollm2-1.7b", 4, 1024, "sdpa", (3777, 5281, 2337)),
]


@pytest.mark.parametrize(("model", "batch", "length", "attention", "published"), T4)
def test_t4_qlora(
    model: str, batch: int, length: int, attention: str, published: tuple[int, ...]
) -> None:
    record = run(
        RunSpec(
            model=model,
            method="lora:r=32,lora_alpha=64,lora_dropout=0.0,"
            "target_modules=q_proj+k_proj+v_proj+o_proj",
            quantization="nf4",
            kbit_prepare="peft",
            weights_dtype="float16",
            batch_size=batch,
            seq_len=length,
            device="t4",
            attention=attention,
            # The published sdpa runs forced this kernel through a shim that expands grouped heads.
            sdpa_backend="auto" if attention == "eager" else "efficient",
            checkpointing="non-reentrant",
            stack="script",
            loop="step-function",
            use_cache=False,
            grad_clip=0.0,
        )
    )
    assert record.status == "ok", record.error
    ours = [record.memory.phases[name] / MIB for name in ("forward", "backward", "optimizer")]
    # SmolLM2's are exact to the MiB. TinyLlama's published figure after loading is 19 MiB above
    # the sum of its own published parts, and its peaks are as much above ours: not explained.
    closeness = 0.001 if model.startswith("smollm2") else 0.01
    assert ours == pytest.approx(list(published), rel=closeness)
