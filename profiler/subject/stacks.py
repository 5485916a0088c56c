"""Whose training step: the defaults that a training stack brings, read off its own code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Defaults of one stack, and what it does that no flag of a run says.

    Attributes:
        loop, loss, kbit_prepare, autocast, checkpointing: see `RunSpec`.
        optimizer: `script`: what `torch.optim.AdamW(parameters)` does. `trainer`: the default of
            `TrainingArguments.optim` since torch 2.8, `adamw_torch_fused`
            (transformers/training_args.py).
        adapter_dtype: peft casts 16-bit adapter weights to float32 (`autocast_adapter_dtype`,
            peft/mapping_func.py).
        adapter_dtype_quantized: the same over quantised weights. TRL casts whatever is trained
            there to bfloat16, DoRA's magnitudes excepted (trl/trainer/sft_trainer.py).
        sets_use_cache: whether the stack overrides the model's `use_cache`
            (`TrainingArguments.use_cache`, default False, since transformers 5).
        refuses_use_cache: whether it does so at every forward, whatever is asked for.
        decay_groups: whether biases and norms get a parameter group of their own
            (`Trainer.get_decay_parameter_names`); an optimizer's temporaries live for one group.
        counts_items: whether `num_items_in_batch` is passed to the model, if it takes it.
        converts_outputs: whether 16-bit outputs of an autocast forward are copied to float32
            (`Accelerator.prepare_model`, accelerate/accelerator.py).
        scales_loss: whether float16 autocast comes with a gradient scaler (accelerate, again; a
            plain loop has none unless it is written).
        measures_tokens: whether it computes entropy and accuracy of the tokens at every step, and
            its loss itself (`profiler.subject.workloads.sft`).
        input_gradients: whether an adapted model's embedding output requires a gradient under
            checkpointing of either kind (trl/trainer/sft_trainer.py).
        moves_model: whether the adapted model is sent to the device as a whole, unless it is
            quantised (`Trainer._move_model_to_device`, transformers/trainer.py). Else what a method
            left on the host stays there.
        loads_on_device: whether weights that are not quantised are loaded onto the device
            (`device_map`), and not on the host first. Quantised ones always are.
    """

    loop: str
    optimizer: str
    loss: str = "full"
    kbit_prepare: str = "none"
    adapter_dtype: str = "float32"
    adapter_dtype_quantized: str = "float32"
    autocast: str = "none"
    checkpointing: str = "none"
    sets_use_cache: bool
    refuses_use_cache: bool = False
    decay_groups: bool
    counts_items: bool
    converts_outputs: bool
    scales_loss: bool
    moves_model: bool
    loads_on_device: bool
    measures_tokens: bool = False
    input_gradients: bool = False


_TRAINER = Stack(
    loop="trainer",
    optimizer="adamw-fused",
    sets_use_cache=True,
    decay_groups=True,
    counts_items=True,
    converts_outputs=True,
    scales_loss=True,
    moves_model=True,
    loads_on_device=False,
)

#: `script` loads as peft's own comparison does (`get_model`, method_comparison/MetaMathQA).
#: `trl` is what `SFTTrainer` of TRL 1.16 does: `SFTConfig` turns on bfloat16 and checkpointing
#: (trl/trainer/base_config.py), which `transformers` 5 makes non-reentrant, and TRL itself for
#: older ones; the loss is TRL's own (`profiler.subject.workloads.sft`). It prepares no quantised
#: model any more; `--kbit-prepare trl` is what it did before, and what its ORPO and CPO trainers
#: still do. A model that is given by name it loads in float32 (`create_model_from_path`,
#: trl/trainer/utils.py), which here is `--weights-dtype float32`, and onto the GPU
#: (`device_map="auto"`).
STACKS = {
    "script": Stack(
        loop="script",
        optimizer="adamw",
        sets_use_cache=False,
        decay_groups=False,
        counts_items=False,
        converts_outputs=False,
        scales_loss=False,
        moves_model=False,
        loads_on_device=True,
    ),
    "trainer": _TRAINER,
    "trl": Stack(
        loop=_TRAINER.loop,
        optimizer=_TRAINER.optimizer,
        loss="chunked",
        adapter_dtype_quantized="bfloat16",
        autocast="bfloat16",
        checkpointing="non-reentrant",
        sets_use_cache=True,
        refuses_use_cache=True,
        decay_groups=True,
        counts_items=True,
        converts_outputs=True,
        scales_loss=True,
        moves_model=True,
        loads_on_device=True,
        measures_tokens=True,
        input_gradients=True,
    ),
}
