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
from typing import TYPE_CHECKING, Any

from profiler.errors import NotBuiltError, UnsupportedError, UsageError
from profiler.hardware import devices, local_cuda
from profiler.spec import RunSpec
from profiler.subject import models, optimizers
from profiler.subject.stacks import STACKS

if TYPE_CHECKING:
    from profiler.subject.methods import Method

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
    "steps": 1,
    "seed": 0,
    "workload": "train",
    "lengths": None,
    "parallelism": None,
}


@dataclass(frozen=True)
class MethodChoice:
    """A method as typed: `label`, its `preset` (or peft type) and the options with the preset's."""

    label: str
    preset: str
    options: dict[str, Any]
    given: frozenset[str]
    method: Method


@dataclass(frozen=True)
class Cell:
    """A resolved cell: `spec` has no open field, `record_spec` is `Record.spec`.

    `unsupported` says why the method and the model do not go together, "" where they do.
    """

    spec: RunSpec
    model: models.ModelSource
    method: MethodChoice
    config: dict[str, Any] | None
    record_spec: dict[str, Any]
    id: str
    unsupported: str


def check(spec: RunSpec) -> None:
    """Cheap checks of a spec's names, without torch. Raises `UsageError`."""
    models.check(spec.model)
    choose_method(spec.method)
    if spec.optimizer is not None:
        optimizers.check(spec.optimizer)
    check_device(spec.device)
    if spec.padded and spec.attention == "flash_attention_2":
        raise NotBuiltError("--padded with flash_attention_2 is not built yet; use sdpa")
    if spec.padded and spec.seq_len < 3:
        raise UsageError("--padded needs a --seq-len of at least 3: two tokens and a padding")
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


def choose_method(label: str) -> MethodChoice:
    """Read a method: a preset, a preset with options, or the path of an adapter config.

    Raises:
        UsageError: no such preset or file, or options that cannot be read.
    """
    from profiler.subject import methods
    from profiler.subject.methods import adapter_config

    if not label.strip():
        raise UsageError("--method is empty; give a preset such as lora, or a path")
    path = Path(label)
    if path.suffix == ".json" or path.is_dir() or path.is_file():
        if not path.exists():
            raise UsageError(f"no adapter config at {label!r}")
        method, peft_type, options = adapter_config.read(path)
        name = path.stem if path.suffix else path.name
        return MethodChoice(name, peft_type, options, frozenset(), method)
    if "&" in label:
        raise NotBuiltError(f"--method {label!r}: joining methods with & is not built yet")
    preset, _, text = label.partition(":")
    if preset.endswith(".py"):
        raise NotBuiltError(f"--method {label!r}: a method from a file is not built yet")
    method = methods.get(preset)
    given = _options(text, label)
    return MethodChoice(label, preset, {**method.defaults, **given}, frozenset(given), method)


def resolve(spec: RunSpec) -> Cell:
    """Fill in every open field of a spec.

    Raises:
        UsageError: a name, an option, an override or a target that does not exist.
        NotBuiltError: a combination that nothing runs yet.
    """
    check(spec)
    stack = STACKS[spec.stack]
    source = models.load(spec.model, spec.model_override)
    choice = choose_method(spec.method)
    method = choice.method
    built = _built(json.dumps(source.config, sort_keys=True), source.name, spec.attention)
    attention = built.config._attn_implementation
    if spec.attention == "flash_attention_2":
        attention = spec.attention
        if spec.weights_dtype == "float32":
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
    resolved = spec.replace(
        quantization=spec.quantization or method.quantization or "none",
        loop=spec.loop or stack.loop,
        kbit_prepare=spec.kbit_prepare or method.kbit_prepare or stack.kbit_prepare,
        adapter_dtype=spec.adapter_dtype or stack.adapter_dtype,
        compute_dtype=spec.compute_dtype or spec.weights_dtype,
        autocast=spec.autocast or stack.autocast,
        use_cache=use_cache,
        optimizer=spec.optimizer or method.optimizer or stack.optimizer,
        checkpointing=checkpointing,
        attention=attention,
    )
    _check_length(resolved, built, choice)
    content = resolved.to_dict()
    content["method"] = {"preset": choice.preset, "options": choice.options}
    content["model"] = source.config
    content["model_override"] = []  # part of the model's content
    record_spec = resolved.to_dict()
    record_spec["model"] = source.name
    record_spec["model_config"] = source.config
    record_spec["method"] = {
        "label": choice.label,
        "preset": choice.preset,
        "options": choice.options,
        "config": config,
    }
    return Cell(
        spec=resolved,
        model=source,
        method=choice,
        config=config,
        record_spec=record_spec,
        id=_identify(source.name, choice.label, resolved, content),
        unsupported=unsupported,
    )


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


def _options(text: str, label: str) -> dict[str, Any]:
    """`r=8,target_modules=q_proj+v_proj`; a value that starts with [, { or " is JSON."""
    options: dict[str, Any] = {}
    rest = text
    decoder = json.JSONDecoder()
    while rest:
        key, separator, rest = rest.partition("=")
        key = key.strip()
        if not separator or not key.isidentifier():
            raise UsageError(
                f"--method {label!r}: options are KEY=VALUE,KEY=VALUE, such as lora:r=8"
            )
        if key in options:
            raise UsageError(f"--method {label!r}: option {key!r} is given twice")
        if rest[:1] in ("[", "{", '"'):
            try:
                options[key], end = decoder.raw_decode(rest)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"--method {label!r}: {key} is no JSON: {error}") from None
            rest = rest[end:]
            if rest and not rest.startswith(","):
                raise UsageError(f"--method {label!r}: a comma must follow the value of {key}")
            rest = rest[1:]
            continue
        value, _, rest = rest.partition(",")
        if not value:
            raise UsageError(f"--method {label!r}: option {key!r} has no value")
        options[key] = value.split("+") if "+" in value else _scalar(value)
    return options


def _scalar(text: str) -> Any:
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


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


def _check_length(spec: RunSpec, model: Any, choice: MethodChoice) -> None:
    """Learned positions are a table of so many rows; past them the real step is an error."""
    import torch

    words = model.get_input_embeddings()
    if not any(
        isinstance(module, torch.nn.Embedding) and module is not words for module in model.modules()
    ):
        return
    limit = getattr(model.config, "max_position_embeddings", None)
    virtual = choice.options.get("num_virtual_tokens", 0)
    if isinstance(limit, int) and isinstance(virtual, int) and spec.seq_len + virtual > limit:
        beside = f" and {virtual} virtual tokens" if virtual else ""
        raise UsageError(f"--seq-len {spec.seq_len}{beside}: {spec.model} has {limit} positions")
