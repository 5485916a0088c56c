"""4-bit weights, packed on the meta device by bitsandbytes' own code: every size is its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def quantize(model: PreTrainedModel, quantization: str, *, compute_dtype: torch.dtype) -> None:
    """Replace the linear layers of a meta model by packed 4-bit ones, as `from_pretrained` does.

    The modules are chosen and replaced by the quantizer of `transformers`; each weight is then
    packed by `bitsandbytes.functional.quantize_4bit`, which on meta tensors computes shapes only.

    Args:
        quantization: `nf4`, `fp4`, or one of them with `-dq` for double quantization.
        compute_dtype: dtype that the dequantised product is computed in.
    """
    from transformers import BitsAndBytesConfig
    from transformers.quantizers import AutoHfQuantizer

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.removesuffix("-dq"),
        bnb_4bit_use_double_quant=quantization.endswith("-dq"),
        bnb_4bit_compute_dtype=compute_dtype,
    )
    quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=False)
    quantizer.preprocess_model(model, device_map=None, keep_in_fp32_modules=[])
    _pack(model)
    quantizer.postprocess_model(model)
    model.is_loaded_in_4bit = True


def quant_state_tensors(parameter: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, Any]]:
    """The tensors beside a packed weight: name, tensor, and the object that holds them.

    absmax (uint8 under double quantization), code, offset, and the nested absmax and code.
    """
    state = getattr(parameter, "quant_state", None)
    prefix = ""
    while state is not None:
        for name in ("absmax", "code", "offset"):
            tensor = getattr(state, name, None)
            if tensor is not None and hasattr(tensor, "untyped_storage"):
                yield prefix + name, tensor, state
        state = getattr(state, "state2", None)
        prefix += "nested_"


def _pack(model: PreTrainedModel) -> None:
    import bitsandbytes as bnb
    import torch

    # bitsandbytes shares one map between all nested states of a process; here it belongs to this
    # model alone, so that no meta tensor is left behind in the library.
    maps = bnb.functional.name2qmap
    kept = maps.get("dynamic")
    maps["dynamic"] = torch.empty(256, device="meta")
    try:
        for module in model.modules():
            if not isinstance(module, bnb.nn.Linear4bit):
                continue
            weight = module.weight
            packed, state = bnb.functional.quantize_4bit(
                weight.data,
                blocksize=weight.blocksize,
                compress_statistics=weight.compress_statistics,
                quant_type=weight.quant_type,
                quant_storage=weight.quant_storage,
            )
            module.weight = bnb.nn.Params4bit(
                packed,
                requires_grad=False,
                quant_state=state,
                blocksize=weight.blocksize,
                compress_statistics=weight.compress_statistics,
                quant_type=weight.quant_type,
                quant_storage=weight.quant_storage,
                module=module,
                bnb_quantized=True,
            )
            module.quant_state = state
    finally:
        if kept is None:
            del maps["dynamic"]
        else:
            maps["dynamic"] = kept
