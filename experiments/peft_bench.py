"""Six methods on six causal models, as PEFT-Bench compares them, with the score that it ranks by.

The source gives a mean task score, a trainable share, a slow-down of inference and a peak of memory
for each method, but neither batch, length, precision nor card, and no figures by model. So what can
be held against it is the order of the methods, and the mean over the models. Its peaks lie close
together, 11.5 to 13.9 GB, so the weights fill most of them: those of these six models are 5.4 GB in
the mean in 16 bits, 10.8 in 32. In 32 bits, one sequence of 128 tokens gives 11.9 to 12.5 GB; in 16
bits, four of 512 give 15 to 21 GB, far more apart than published.

The models are GPT-2 XL and LLaMA-7B, which the source names, and four of other families. BitFit
trains biases: LLaMA has none, so its cells there are `unsupported`, and its mean is over the
others, which are smaller.
"""

from __future__ import annotations

from profiler import RunSpec

#: What the report compares the others with.
BASELINE = "lora"

DEVICE = "a100-80gb"
BATCH_SIZE = 1
SEQ_LEN = 128

MODELS = ("gpt2-xl", "llama-2-7b", "opt-2.7b", "bloom-560m", "llama-3.2-3b", "qwen2.5-1.5b")

METHODS = ("lora", "adapter", "ia3", "prefix-tuning", "prompt-tuning", "bitfit")


def study(quick: bool = False) -> list[RunSpec]:
    """Every method on every model in 32 bits; quick: the smallest model and a short sequence."""
    return [
        RunSpec(
            model=model,
            method=method,
            weights_dtype="float32",
            batch_size=BATCH_SIZE,
            seq_len=32 if quick else SEQ_LEN,
            device=DEVICE,
        )
        for model in (("bloom-560m",) if quick else MODELS)
        for method in METHODS
    ]
