"""Whose training step: the defaults that a training stack brings, read off its own code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Defaults of one stack.

    Attributes:
        loop: see `RunSpec.loop`.
        optimizer: `script`: what `torch.optim.AdamW(parameters)` does. `trainer`: the default of
            `TrainingArguments.optim` since torch 2.8, `adamw_torch_fused`
            (transformers/training_args.py).
        adapter_dtype: peft casts 16-bit adapter weights to float32 (`autocast_adapter_dtype`,
            peft/mapping_func.py).
        sets_use_cache: whether the stack overrides the model's `use_cache`
            (`TrainingArguments.use_cache`, default False, since transformers 5).
        decay_groups: whether biases and norms get a parameter group of their own
            (`Trainer.get_decay_parameter_names`); an optimizer's temporaries live for one group.
        counts_items: whether `num_items_in_batch` is passed to the model, if it takes it.
    """

    loop: str
    optimizer: str
    kbit_prepare: str = "none"
    adapter_dtype: str = "float32"
    autocast: str = "none"
    checkpointing: str = "none"
    sets_use_cache: bool
    decay_groups: bool
    counts_items: bool


STACKS = {
    "script": Stack(
        loop="script",
        optimizer="adamw",
        sets_use_cache=False,
        decay_groups=False,
        counts_items=False,
    ),
    "trainer": Stack(
        loop="trainer",
        optimizer="adamw-fused",
        sets_use_cache=True,
        decay_groups=True,
        counts_items=True,
    ),
}
