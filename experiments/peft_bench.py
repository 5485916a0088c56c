"""Six methods on six causal models, as PEFT-Bench compares them, with the score that it ranks by.

The source gives a mean task score, a trainable share, a slow-down of inference and a peak of memory
for each method, but neither batch, length, precision nor card, and no figures by model. So what can
be held against it is the order of the methods and the mean over the models.

The models are GPT-2 XL and LLaMA-7B, which the source names, and four of the families that it takes
the others from. BitFit trains biases: LLaMA has none, so its cells there are `unsupported`, and its
mean is over the other models.
"""

from __future__ import annotations

from profiler import RunSpec

#: What the report compares the others with.
BASELINE = "lora"

DEVICE = "a100-80gb"
BATCH_SIZE = 4
SEQ_LEN = 512

MODELS = ("gpt2-xl", "llama-2-7b", "opt-2.7b", "bloom-560m", "llama-3.2-3b", "qwen2.5-1.5b")

METHODS = ("lora", "adapter", "ia3", "prefix-tuning", "prompt-tuning", "bitfit")


def study(quick: bool = False) -> list[RunSpec]:
    """Every method on every model; quick: the two smallest models and a short batch."""
    models = ("bloom-560m", "qwen2.5-0.5b") if quick else MODELS
    return [
        RunSpec(
            model=model,
            method=method,
            batch_size=1 if quick else BATCH_SIZE,
            seq_len=64 if quick else SEQ_LEN,
            device=DEVICE,
        )
        for model in models
        for method in METHODS
    ]
