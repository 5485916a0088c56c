"""What can be told of a live model and its optimizer: counts, names, the record's `spec`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from profiler.record import Params
from profiler.subject.adapter_file import adapter_file_bytes

#: Where a live model's spec has nothing to say.
_LABEL = "live"


def adapter_names(model: torch.nn.Module) -> frozenset[str]:
    """Paths of the parameters that a method of `peft` added."""
    holders: list[Any] = []
    for module in model.modules():
        for name in (
            *getattr(module, "adapter_layer_names", ()),
            *getattr(module, "other_param_names", ()),
        ):
            holders.append(getattr(module, str(name), None))
        if hasattr(module, "peft_config"):
            holders.append(getattr(module, "prompt_encoder", None))
        if hasattr(module, "original_module"):
            holders.append(getattr(module, "modules_to_save", None))
    added = {
        id(parameter)
        for holder in holders
        if isinstance(holder, torch.nn.Module)
        for parameter in holder.parameters()
    }
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in added)


def counts(model: torch.nn.Module) -> Params:
    """Parameters, total and trained; packed weights count as the numbers they stand for."""
    total = trainable = 0
    for parameter in model.parameters():
        packed = getattr(parameter, "quant_state", None)
        total += parameter.numel() if packed is None else packed.shape.numel()
        trainable += parameter.numel() if parameter.requires_grad else 0
    return Params(
        total=total,
        trainable=trainable,
        trainable_fraction=trainable / total if total else 0.0,
        adapter_file_bytes=adapter_file_bytes(model),
    )


def quantization(model: torch.nn.Module) -> str:
    """As `RunSpec.quantization`."""
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            return f"{state.quant_type}{'-dq' if state.nested else ''}"
        if type(parameter).__name__ == "Int8Params":
            return "int8"
    return "none"


def spec(model: Any, optimizer: Any, device: str, **more: Any) -> dict[str, Any]:
    """What is known of the run, under the names of `RunSpec`'s fields."""
    get_base = getattr(model, "get_base_model", None)
    base = get_base() if get_base is not None else model
    configs = getattr(model, "peft_config", {})
    config = next(iter(configs.values())).to_dict() if configs else None
    dtypes = [
        str(parameter.dtype).removeprefix("torch.")
        for parameter in base.parameters()
        if parameter.is_floating_point()
    ]
    return {
        "model": type(base).__name__,
        "method": {
            "label": _LABEL,
            "preset": str(config["peft_type"].value).lower() if config else None,
            "options": {},
            "config": json.loads(json.dumps(config, default=_plain)),
        },
        "quantization": quantization(model),
        "stack": _LABEL,
        "weights_dtype": max(set(dtypes), key=dtypes.count) if dtypes else None,
        "attention": getattr(getattr(base, "config", None), "_attn_implementation", None),
        "optimizer": type(optimizer).__name__ if optimizer is not None else None,
        "device": device,
        "workload": "train",
        **more,
    }


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def identity(spec: dict[str, Any]) -> str:
    """An id like a cell's: a slug, and twelve hex digits over the spec."""
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
    device = str(spec["device"]).replace(":", "-")
    return f"{_LABEL}-{str(spec['model']).lower()}-{device}-{digest}"
