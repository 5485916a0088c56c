"""Resolution: what a person typed becomes values, and presets, defaults and paths content.

A resolved cell has no open field; its id is a hash of content, so that two ways of saying the same
run (a preset or its options, a default or the flag) are one cell.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler import lengths, sizes
from profiler.errors import NotBuiltError, UnsupportedError, UsageError
from profiler.hardware import device_profile, devices, local_cuda
from profiler.hardware.device_profile import DeviceProfile
from profiler.lengths import LengthHistory
from profiler.method_choice import MethodChoice, choose_method
from profiler.spec import RunSpec
from profiler.subject import models, optimizers
from profiler.subject.stacks import STACKS

#: What a field of an id is compared with: a field added later with its default changes no id.
ID_DEFAULTS: dict[str, Any] = {
    "model_override": [],
    "quantization": "none",
    "stack": "trainer",
    "loop": "trainer",
    "kbit_prepare": "none",
    "weights_dtype": "bfloat16",
    "adapter_dtype": "float32",
    "compute_dtype": "bfloat16",
    "autocast": "none",
    "loss": "full",
    "batch_size": 1,
    "seq_len": 1024,
    "grad_accumulation": 1,
    "padded": False,
    "pad_fraction": 0.25,
    "use_cache": False,
    "optimizer": "adamw-fused",
    "grad_clip": 1.0,
    "checkpointing": "none",
    "attention": "sdpa",
    "sdpa_backend": "auto",
    "alloc_conf": "",
    "device": "rtx-4090",
    "vram": None,
    "base_evaluation": False,
    "steps": 1,
    "seed": 0,
    "workload": "train",
    "lengths": None,
    "batching": "in-order",
    "bucket_batches": 20,
    "empty_cache_every": 0,
    "length_field": "length",
    "text_field": None,
    "tokenizer": None,
    "max_length": None,
    "calibration": None,
    "parallelism": None,
}


@dataclass(frozen=True)
class Cell:
    """A resolved cell: `spec` has no open field, `record_spec` is `Record.spec`.

    `unsupported` says why the method and the model do not go together, "" where they do.
    `history` holds the batches of `--lengths`, `calibration` the device profile of
    `--calibration`.
    """

    spec: RunSpec
    model: models.ModelSource
    method: MethodChoice
    config: dict[str, Any] | None
    record_spec: dict[str, Any]
    id: str
    unsupported: str
    history: LengthHistory | None = None
    calibration: DeviceProfile | None = None


def check(spec: RunSpec, *, here: bool = True) -> None:
    """Cheap checks of a spec's names, without torch; `here`: whether this machine will run it.
    Raises `UsageError`."""
    models.check(spec.model)
    choose_method(spec.method)
    if spec.optimizer is not None:
        optimizers.check(spec.optimizer)
    if here or spec.device != "cuda":
        check_device(spec.device)
    if spec.vram is not None:
        _check_vram(spec.device, spec.vram)
    if spec.loss == "chunked" and not STACKS[spec.stack].measures_tokens:
        raise NotBuiltError(
            f"--loss chunked is not built yet for --stack {spec.stack}: it is TRL's own loss; "
            "use --stack trl"
        )
    if spec.autocast == "float32" and spec.device in ("cpu", "sim:cpu"):
        raise UsageError(
            "--autocast float32 does nothing on a CPU, where torch.autocast knows bfloat16 and "
            "float16; use --autocast none"
        )
    if spec.use_cache and STACKS[spec.stack].refuses_use_cache:
        raise UsageError("--use-cache true: SFTTrainer passes use_cache=False to every forward")
    if spec.padded and spec.seq_len < 3:
        raise UsageError("--padded needs a --seq-len of at least 3: two tokens and a padding")
    lengths.check(spec)
    if spec.calibration is not None:
        _calibration(spec.device, spec.calibration, spec.lengths)
    from profiler.analysis.alloc_conf import AllocConf

    AllocConf.parse(spec.alloc_conf)


def check_device(device: str) -> None:
    """Raise unless the device is one that this machine has, or a GPU of the table."""
    if device == "cuda":
        missing = local_cuda.missing()
        if missing:
            raise UsageError(
                f"--device cuda runs the step on this machine's GPU, but {missing}; name a GPU "
                "to simulate, such as rtx-4090"
            )
    elif device not in ("cpu", "sim:cpu"):
        devices.device(device)


def _check_vram(device: str, vram: str) -> None:
    if device in (*devices.MEASURED, "sim:cpu"):
        raise UsageError(f"--vram is of a simulated GPU; --device {device} is this machine")
    devices.device(device).with_memory(sizes.parse(vram, "--vram"))


def _calibration(device: str, path: str, lengths: str | None) -> DeviceProfile:
    """The device profile of a cell, which must be one of the machine that it is simulated as."""
    if device in devices.MEASURED:
        raise UsageError(
            f"--calibration predicts times, and --device {device} measures them; use "
            "--device sim:cpu"
        )
    profile = device_profile.read(path)
    if lengths is not None:
        raise NotBuiltError("--calibration with --lengths is not built yet; leave one of them out")
    if (profile.kind == "cpu") != (device == "sim:cpu"):
        kind, fits = ("CPU", "sim:cpu") if profile.kind == "cpu" else ("GPU", "its own name")
        raise UsageError(
            f"--calibration {path} is of a {kind}, {profile.name}, and predicts no times for "
            f"{device}; use --device with {fits}"
        )
    return profile


def resolve(spec: RunSpec, *, here: bool = True) -> Cell:
    """Fill in every open field of a spec.

    Args:
        here: Whether this machine will run it, and so must have its device.

    Raises:
        UsageError: a name, an option, an override or a target that does not exist.
        NotBuiltError: a combination that nothing runs yet.
    """
    check(spec, here=here)
    stack = STACKS[spec.stack]
    source = models.load(spec.model, spec.model_override)
    choice = choose_method(spec.method)
    method = choice.method
    built = _built(json.dumps(source.config, sort_keys=True), source.name, spec.attention)
    attention = built.config._attn_implementation
    if spec.attention == "flash_attention_2":
        attention = spec.attention
        # transformers casts what comes to it in float32 to autocast's dtype
        # (transformers/integrations/flash_attention.py, `get_target_dtype`).
        half = (spec.weights_dtype, spec.autocast or stack.autocast)
        if not {"float16", "bfloat16"}.intersection(half):
            raise UsageError(
                "--attention flash_attention_2 needs 16-bit weights; "
                "use --weights-dtype bfloat16 or float16"
            )
    config, unsupported = None, ""
    try:
        config = method.config(choice.options, built, given=choice.given)
    except UnsupportedError as error:
        unsupported = str(error)

    checkpointing = spec.checkpointing or stack.checkpointing
    unsupported = unsupported or method.refuses(checkpointing=checkpointing)
    use_cache = spec.use_cache
    if use_cache is None:
        use_cache = bool(getattr(built.config, "use_cache", False))
        if checkpointing != "none" or (stack.sets_use_cache and _trainer_sets_use_cache()):
            use_cache = False
        if stack.refuses_use_cache:
            use_cache = False
    quantization = spec.quantization or method.quantization or "none"
    adapter_dtype = stack.adapter_dtype
    if quantization != "none":
        adapter_dtype = stack.adapter_dtype_quantized
    kbit_prepare = spec.kbit_prepare or method.kbit_prepare or stack.kbit_prepare
    autocast = spec.autocast or stack.autocast
    if kbit_prepare == "trl" and quantization != "none" and autocast == "none":
        raise UsageError(
            "--kbit-prepare trl leaves float32 norms before a 16-bit head, which only autocast "
            "joins (TRL casts so under bf16=True alone); add --autocast bfloat16"
        )
    loss = spec.loss or stack.loss
    if spec.device == "cuda" and loss == "chunked":
        raise NotBuiltError(
            "--loss chunked is not built for --device cuda yet: it runs in TRL's Triton kernels; "
            "name a GPU to simulate, or use --loss full"
        )
    history = None if spec.lengths is None else lengths.load(spec)
    if history is not None:
        _check_history(spec, history, attention=attention, loss=loss)
    resolved = spec.replace(
        seq_len=spec.seq_len if history is None else history.longest,
        vram=None if spec.vram is None else str(sizes.parse(spec.vram, "--vram")),
        steps=(spec.steps or 1) if history is None else len(history.batches),
        quantization=quantization,
        loop=spec.loop or stack.loop,
        kbit_prepare=kbit_prepare,
        adapter_dtype=spec.adapter_dtype or adapter_dtype,
        compute_dtype=spec.compute_dtype or spec.weights_dtype,
        autocast=autocast,
        loss=loss,
        use_cache=use_cache,
        optimizer=spec.optimizer or method.optimizer or stack.optimizer,
        checkpointing=checkpointing,
        attention=attention,
    )
    _check_length(resolved, built, choice)
    content = resolved.to_dict()
    content["method"] = choice.content()
    content["model"] = source.config
    content["model_override"] = []  # part of the model's content
    if history is not None:
        content["lengths"] = history.sha256  # and with it what it was read and cut by
        for name in ("length_field", "text_field", "tokenizer", "max_length"):
            content[name] = ID_DEFAULTS[name]
    calibration = None
    if spec.calibration is not None:
        calibration = _calibration(spec.device, spec.calibration, spec.lengths)
        content["calibration"] = calibration.sha256
    if resolved.batching != "buckets":
        content["bucket_batches"] = ID_DEFAULTS["bucket_batches"]
    record_spec = resolved.to_dict()
    record_spec["model"] = source.name
    record_spec["model_config"] = source.config
    record_spec["method"] = {
        "label": choice.label,
        "preset": choice.preset,
        "options": choice.options,
        "config": config,
    }
    if history is not None:
        record_spec["lengths"] = history.summary()
        if resolved.tokenizer is not None and Path(resolved.tokenizer).exists():
            record_spec["tokenizer"] = Path(resolved.tokenizer).name
    if calibration is not None:
        record_spec["calibration"] = calibration.summary()
    return Cell(
        spec=resolved,
        model=source,
        method=choice,
        config=config,
        record_spec=record_spec,
        id=_identify(source.name, choice.label, resolved, content),
        unsupported=unsupported,
        history=history,
        calibration=calibration,
    )


def _check_history(spec: RunSpec, history: LengthHistory, *, attention: str, loss: str) -> None:
    """What goes together with a history's batches, now that they are known."""
    if spec.seq_len not in (ID_DEFAULTS["seq_len"], history.longest):
        raise UsageError(
            f"--seq-len {spec.seq_len} with --lengths: the lengths are the file's; "
            "cut them with --max-length"
        )
    if loss == "chunked":
        raise NotBuiltError(
            "--lengths with --loss chunked is not built yet: its bytes depend on how many tokens "
            "have a label; use --loss full"
        )
    if attention == "flash_attention_2" and any(batch.shape.padded for batch in history.batches):
        raise NotBuiltError("--lengths with flash_attention_2 is not built yet; use sdpa")


def _identify(model: str, label: str, spec: RunSpec, content: dict[str, Any]) -> str:
    different = {
        key: value
        for key, value in content.items()
        if key not in ID_DEFAULTS or value != ID_DEFAULTS[key]
    }
    text = json.dumps(different, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    words = f"{model}-{label}-{spec.device}-b{spec.batch_size}-s{spec.seq_len}"
    slug = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.")[:80].strip("-.")
    return f"{slug}-{digest}"


@functools.lru_cache(maxsize=4)
def _built(config: str, name: str, attention: str) -> Any:
    """The base model on meta, only to be looked at."""
    import torch

    source = models.ModelSource(name, json.loads(config))
    return models.build(source, dtype=torch.bfloat16, attention=attention)


def _trainer_sets_use_cache() -> bool:
    import dataclasses

    from transformers import TrainingArguments

    return any(item.name == "use_cache" for item in dataclasses.fields(TrainingArguments))


@functools.lru_cache(maxsize=4)
def _positions(model: Any) -> Any:
    """Rows of the table of learned positions, None if there is none or nobody knows."""
    import torch

    words = model.get_input_embeddings()
    if not any(
        isinstance(module, torch.nn.Embedding) and module is not words for module in model.modules()
    ):
        return None
    return getattr(model.config, "max_position_embeddings", None)


def _check_length(spec: RunSpec, model: Any, choice: MethodChoice) -> None:
    """Learned positions are a table of so many rows; past them the real step is an error."""
    limit = _positions(model)
    virtual = choice.options.get("num_virtual_tokens", 0)
    if isinstance(limit, int) and isinstance(virtual, int) and spec.seq_len + virtual > limit:
        beside = f" and {virtual} virtual tokens" if virtual else ""
        raise UsageError(f"--seq-len {spec.seq_len}{beside}: {spec.model} has {limit} positions")
