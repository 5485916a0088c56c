"""Every method on OPT-125M and a small Llama, really run on this CPU and simulated as it.

Small enough for any machine, if not quick: some 220 cells. What a method costs beside another shows
already here, and the two columns must agree to the byte.
"""

from __future__ import annotations

from profiler import RunSpec
from profiler.subject import methods

METHODS = methods.names()

#: A Llama of 4 layers and a width of 512, with Llama 2's vocabulary: 28 million parameters.
SMALL_LLAMA = (
    "vocab_size=32000",
    "hidden_size=512",
    "intermediate_size=1408",
    "num_hidden_layers=4",
    "num_attention_heads=8",
    "num_key_value_heads=4",
    "head_dim=64",
)

BATCH_SIZE = 2
SEQ_LEN = 128


def study(quick: bool = False) -> list[RunSpec]:
    """Each method on both models, measured and simulated; quick: LoRA and QLoRA on the Llama."""
    models: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("opt-125m", ()),
        ("llama-3.2-1b", SMALL_LLAMA),
    )
    chosen: tuple[str, ...] = METHODS
    if quick:
        models, chosen = models[1:], ("lora", "qlora")
    return [
        RunSpec(
            model=model,
            model_override=overrides,
            method=method,
            batch_size=BATCH_SIZE,
            seq_len=SEQ_LEN,
            device=device,
            steps=3,
        )
        for model, overrides in models
        for method in chosen
        for device in ("cpu", "sim:cpu")
    ]
