"""BLOOM-1.4B zh: eight methods to the parameter, and full fine-tuning in 32 bits.

The published table gives trainable and total parameters; they follow from the configurations below
and agree to the unit. Hard prompt tuning begins as the embeddings of a text, which decides no size,
so no tokenizer is fetched. P-tuning's second encoder, an LSTM, has no published count.

Everything is in 32 bits, because the published memory of full fine-tuning is arithmetic with four
bytes a parameter: model 5.2 GB, gradients 5.2, Adam's moments 10.4. The source names neither batch
nor length; one sequence of 256 tokens is ours. A longer one only adds activations and logits.
"""

from __future__ import annotations

import json

from profiler import RunSpec

#: What the report compares the others with.
BASELINE = "full"

MODEL = "bloom-1b4-zh"
DEVICE = "rtx-4090"
BATCH_SIZE = 1
SEQ_LEN = 256

#: The text of a hard prompt; any other would give the same figures.
TEXT = "A dialogue:"

P_TUNING = "num_virtual_tokens=10,encoder_hidden_size=1024"

METHODS = (
    "full",
    "bitfit",
    "prompt-tuning:num_virtual_tokens=8,prompt_tuning_init=TEXT,"
    f"prompt_tuning_init_text={json.dumps(TEXT)}",
    "prompt-tuning:num_virtual_tokens=10",
    f"p-tuning:{P_TUNING}",
    f"p-tuning:{P_TUNING},encoder_reparameterization_type=LSTM",
    "prefix-tuning:num_virtual_tokens=10",
    "prefix-tuning:num_virtual_tokens=10,prefix_projection=true,encoder_hidden_size=2048",
    'lora:r=8,target_modules=".*\\\\.1.*query_key_value",modules_to_save=["word_embeddings"]',
    "ia3",
)

#: The same architecture with few and narrow layers; its counts are its own.
SMALL = ("hidden_size=64", "n_layer=2", "n_head=4", "vocab_size=512")


def study(quick: bool = False) -> list[RunSpec]:
    """Every method on one GPU; quick: two narrow layers and a short sequence."""
    return [
        RunSpec(
            model=MODEL,
            model_override=SMALL if quick else (),
            method=method,
            weights_dtype="float32",
            batch_size=BATCH_SIZE,
            seq_len=32 if quick else SEQ_LEN,
            device=DEVICE,
        )
        for method in METHODS
    ]
