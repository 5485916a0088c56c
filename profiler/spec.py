"""RunSpec: one cell of a study, as a person states it; `profiler.resolve` fills in what is open."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from profiler.errors import NotBuiltError, UsageError, unknown

DTYPES = ("float32", "bfloat16", "float16")


def _choice(
    help: str, *, values: tuple[str, ...], built: tuple[str, ...] | None = None, **more: Any
) -> dict[str, Any]:
    return {"help": help, "values": values, "built": values if built is None else built, **more}


def _option(help: str, **more: Any) -> dict[str, Any]:
    return {"help": help, **more}


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run: a model, a method and a training configuration on a device.

    A field that is `None` is taken from the method, else from the stack (`profiler.resolve`).
    Field names are the command line's flags. `metadata` holds each flag's help, its values, which
    of them are built, and whether it may be repeated to span a grid.

    Raises:
        UsageError: a value is not one of the field's, or out of its range.
        NotBuiltError: a value that the contract names and nothing implements yet.
    """

    model: str = field(
        metadata=_option(
            "a shipped architecture, a folder or file with a config.json, or a Hub id", grid=True
        )
    )
    model_override: tuple[str, ...] = field(
        default=(),
        metadata=_option("KEY=VALUE on the architecture's config; all given apply to every cell"),
    )
    method: str = field(
        default="lora",
        metadata=_option(
            "a preset (lora, qlora, full, ...), a preset with options "
            "(lora:r=8,target_modules=q_proj+v_proj) or the path of a peft adapter_config.json",
            grid=True,
        ),
    )
    quantization: str | None = field(
        default=None,
        metadata=_choice(
            "how the frozen weights are stored; default: the method's",
            values=("none", "nf4", "nf4-dq", "fp4", "fp4-dq", "int8"),
            grid=True,
        ),
    )
    stack: str = field(
        default="trainer",
        metadata=_choice(
            "whose training step: the plain loop, transformers.Trainer or TRL's SFTTrainer",
            values=("script", "trainer", "trl"),
            grid=True,
        ),
    )
    loop: str | None = field(
        default=None,
        metadata=_choice(
            "which names stay bound between forward, backward and optimizer; default: the stack's",
            values=("trainer", "step-function", "script"),
        ),
    )
    kbit_prepare: str | None = field(
        default=None,
        metadata=_choice(
            "preparation of a quantised model; default: the method's, else the stack's",
            values=("none", "peft", "trl"),
        ),
    )
    weights_dtype: str = field(
        default="bfloat16",
        metadata=_choice("dtype the base weights are loaded in", values=DTYPES, grid=True),
    )
    adapter_dtype: str | None = field(
        default=None,
        metadata=_choice("dtype of the adapter's weights; default: the stack's", values=DTYPES),
    )
    compute_dtype: str | None = field(
        default=None,
        metadata=_choice("dtype quantised layers compute in; default: the weights'", values=DTYPES),
    )
    autocast: str | None = field(
        default=None,
        metadata=_choice(
            "dtype of torch.autocast around the forward; default: the stack's",
            values=("none", *DTYPES),
        ),
    )
    loss: str | None = field(
        default=None,
        metadata=_choice(
            "how the loss is computed: full is logits, then cross-entropy, as the model does it; "
            "chunked is TRL's, which keeps no logits; default: the stack's",
            values=("full", "chunked", "liger"),
            built=("full", "chunked"),
        ),
    )
    batch_size: int = field(
        default=1, metadata=_option("sequences in a batch", minimum=1, grid=True)
    )
    seq_len: int = field(
        default=1024, metadata=_option("tokens in a sequence", minimum=1, grid=True)
    )
    grad_accumulation: int = field(
        default=1, metadata=_option("forward and backward passes to an optimizer step", minimum=1)
    )
    padded: bool = field(
        default=False,
        metadata=_option(
            "right padding, at least one position, so that the attention mask is materialised; "
            "without it an all-ones mask is passed and elided as the real run elides it"
        ),
    )
    pad_fraction: float = field(
        default=0.25,
        metadata=_option("share of the positions that are padding, with --padded", minimum=0.0),
    )
    use_cache: bool | None = field(
        default=None,
        metadata=_option(
            "whether the forward builds a KV cache; default: as the model's config, checkpointing "
            "and the stack resolve it"
        ),
    )
    optimizer: str | None = field(
        default=None,
        metadata=_option("optimizer; default: the method's, else the stack's", grid=True),
    )
    grad_clip: float = field(
        default=1.0, metadata=_option("max norm of gradient clipping; 0 is off", minimum=0.0)
    )
    checkpointing: str | None = field(
        default=None,
        metadata=_choice(
            "gradient checkpointing; default: the stack's",
            values=("none", "reentrant", "non-reentrant"),
            grid=True,
        ),
    )
    attention: str = field(
        default="auto",
        metadata=_choice(
            "attention implementation of the model",
            values=("auto", "eager", "sdpa", "flash_attention_2"),
            grid=True,
        ),
    )
    sdpa_backend: str = field(
        default="auto",
        metadata=_choice(
            "kernel of scaled_dot_product_attention",
            values=("auto", "cudnn", "flash", "efficient", "math"),
        ),
    )
    alloc_conf: str = field(
        default="", metadata=_option("allocator settings, as in PYTORCH_ALLOC_CONF")
    )
    device: str = field(
        default="rtx-4090",
        metadata=_option(
            "cpu or cuda: measured; a GPU's name: simulated; sim:cpu: simulated as this CPU",
            grid=True,
        ),
    )
    vram: str | None = field(
        default=None,
        metadata=_option(
            "memory of the simulated GPU that the process may have, such as 22.5GiB (others hold "
            "the rest); default: all of it"
        ),
    )
    base_evaluation: bool = field(
        default=False,
        metadata=_option(
            "before the first step, one forward in inference mode with the adapter disabled, as an "
            "evaluation of the base model does; peft's disable_adapter() makes the adapter's "
            "weights trainable again when it ends, those that an optimizer froze too"
        ),
    )
    steps: int | None = field(
        default=None,
        metadata=_option(
            "measured steps, after one warm-up step (default: 1); with --lengths the steps of the "
            "history that are run (default: all)",
            minimum=1,
        ),
    )
    seed: int = field(default=0, metadata=_option("random seed", minimum=0))
    workload: str = field(
        default="train",
        metadata=_choice("what is run", values=("train",), flag=False),
    )
    lengths: str | None = field(
        default=None,
        metadata=_option(
            "a file with the length of each sample, in tokens, one a line or as JSON lines: the "
            "steps of a whole run are simulated, and --seq-len is the longest batch's"
        ),
    )
    batching: str = field(
        default="in-order",
        metadata=_choice(
            "how --lengths becomes batches: in the file's order, shuffled by the seed, or buckets "
            "of batches, each sorted, longest first",
            values=("in-order", "random", "buckets"),
        ),
    )
    bucket_batches: int = field(
        default=20, metadata=_option("batches in a bucket, with --batching buckets", minimum=1)
    )
    empty_cache_every: int = field(
        default=0,
        metadata=_option(
            "with --lengths: steps after which torch.cuda.empty_cache() is called, again and "
            "again; 0 is never",
            minimum=0,
        ),
    )
    length_field: str = field(
        default="length",
        metadata=_option("field of the JSON lines of --lengths that is a number or a list"),
    )
    text_field: str | None = field(
        default=None,
        metadata=_option("field of the JSON lines of --lengths that is a text for --tokenizer"),
    )
    tokenizer: str | None = field(
        default=None,
        metadata=_option("counts --text-field's tokens: a folder, a tokenizer.json or a Hub id"),
    )
    max_length: int | None = field(
        default=None,
        metadata=_option("with --lengths: longer samples are cut to so many tokens", minimum=1),
    )
    calibration: str | None = field(
        default=None,
        metadata=_option(
            "a device profile (python -m profiler.calibrate) from which times are predicted: a "
            "CPU's on sim:cpu, a GPU's on the card of its name"
        ),
    )
    parallelism: None = field(default=None, metadata=_option("several GPUs", flag=False))

    def __post_init__(self) -> None:
        hints = _hints()
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            flag = "--" + item.name.replace("_", "-")
            value = _typed(flag, value, hints[item.name])
            object.__setattr__(self, item.name, value)
            if value is None:
                continue
            values = item.metadata.get("values")
            if values is not None:
                if value not in values:
                    raise unknown(f"value for {flag}:", value, values)
                if value not in item.metadata["built"]:
                    raise NotBuiltError(
                        f"{flag} {value} is not built yet; "
                        f"use one of {', '.join(item.metadata['built'])}"
                    )
            minimum = item.metadata.get("minimum")
            if minimum is not None and not value >= minimum:
                raise UsageError(f"{flag} must be at least {minimum}, not {value}")
        if not self.model:
            raise UsageError("--model is empty; give the name of an architecture or a path")
        if not 0.0 <= self.pad_fraction < 1.0:
            raise UsageError(f"--pad-fraction must be in [0, 1), not {self.pad_fraction}")

    def replace(self, **changes: Any) -> RunSpec:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        data = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        data["model_override"] = list(self.model_override)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunSpec:
        """The spec of `to_dict`'s output. Raises `UsageError` for unknown fields."""
        names = [item.name for item in dataclasses.fields(cls)]
        for key in data:
            if key not in names:
                raise unknown("field of RunSpec", key, names)
        if "model" not in data:
            raise UsageError("a RunSpec needs a model")
        fields = dict(data)
        if isinstance(fields.get("model_override"), list):
            fields["model_override"] = tuple(fields["model_override"])
        return cls(**fields)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)


@functools.cache
def _hints() -> dict[str, Any]:
    """The types of RunSpec's fields: evaluating them anew took half the time of a check."""
    return get_type_hints(RunSpec)


def _typed(flag: str, value: Any, hint: Any) -> Any:
    """`value` if it is of the field's type; an int passes as a float."""
    allowed = get_args(hint) or (hint,)
    if hint == tuple[str, ...]:
        if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
            return value
        raise UsageError(f"{flag} must be a tuple of KEY=VALUE strings, not {value!r}")
    if value is None:
        if type(None) in allowed or hint is type(None):
            return None
        raise UsageError(f"{flag} needs a value")
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{flag} must be a finite number, not {value}")
    if not any(type(value) is kind for kind in allowed):
        names = " or ".join(kind.__name__ for kind in allowed if kind is not type(None))
        raise UsageError(f"{flag} must be {names or 'left out'}, not {value!r}")
    return value
