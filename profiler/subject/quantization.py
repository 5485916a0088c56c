"""4-bit and 8-bit weights, packed on the meta device by bitsandbytes' own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel


def quantize(
    model: PreTrainedModel,
    quantization: str,
    *,
    compute_dtype: torch.dtype,
    replaced: Callable[[PreTrainedModel, Any], None] | None = None,
) -> None:
    """Replace a model's linear layers by quantised ones on meta, as `from_pretrained` does.

    The modules are chosen and replaced by the quantizer of `transformers`; each weight is then
    packed by `bitsandbytes.functional`, which on meta tensors computes shapes only.

    Args:
        quantization: `nf4`, `fp4`, or one of them with `-dq` for double quantization; or `int8`
            (LLM.int8, Dettmers et al., arXiv 2208.07339).
        compute_dtype: dtype that a 4-bit layer's dequantised product is computed in; an 8-bit one
            takes its input's.
        replaced: called with the model and its quantizer once the layers are replaced, before
            their weights are packed.

    Raises:
        UnsupportedError: the installed peft cannot adapt the installed bitsandbytes' 8-bit layers.
    """
    from transformers.quantizers import AutoHfQuantizer

    if quantization == "int8":
        _check_versions()
    quantizer = AutoHfQuantizer.from_config(
        _settings(quantization, compute_dtype), pre_quantized=False
    )
    with _default_dtype(model.dtype):
        quantizer.preprocess_model(model, device_map=None, keep_in_fp32_modules=[])
    if replaced is not None:
        replaced(model, quantizer)
    if quantization == "int8":
        _pack_int8(model)
        model.is_loaded_in_8bit = True
    else:
        _pack_4bit(model)
        model.is_loaded_in_4bit = True
    quantizer.postprocess_model(model)


def quant_state_tensors(parameter: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, Any]]:
    """The tensors beside a packed weight: name, tensor, and the object that holds them.

    4-bit: absmax (uint8 under double quantization), code, offset, and the nested absmax and code.
    8-bit: SCB, each row's largest magnitude; the first forward moves it on to the module's state
    (`Linear8bitLt.init_8bit_state`).
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
    scales = getattr(parameter, "SCB", None)
    if scales is not None:
        yield "SCB", scales, parameter


def _check_versions() -> None:
    """peft's older 8-bit layers ask for a setting that bitsandbytes 0.45 dropped."""
    import inspect

    import peft
    from bitsandbytes import MatmulLtState
    from peft.tuners.lora import bnb

    setting = "memory_efficient_backward"
    if setting in inspect.getsource(bnb) and not hasattr(MatmulLtState, setting):
        raise UnsupportedError(
            f"peft {peft.__version__} cannot adapt the 8-bit layers of this bitsandbytes "
            f"(it asks for their {setting}); use a newer peft, or 4 bits such as nf4"
        )


def _settings(quantization: str, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.removesuffix("-dq"),
        bnb_4bit_use_double_quant=quantization.endswith("-dq"),
        bnb_4bit_compute_dtype=compute_dtype,
    )


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New layers' biases get the dtype that the model is loaded in, as in `from_pretrained`."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _pack_int8(model: PreTrainedModel) -> None:
    """As `Int8Params._quantize`: the weight and `CB` are one tensor."""
    import bitsandbytes as bnb
    import torch

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear8bitLt):
            data = module.weight.data
            packed, scales, _ = bnb.functional.int8_vectorwise_quant(data.to(torch.float16))
            module.weight = bnb.nn.Int8Params(
                packed,
                requires_grad=False,
                has_fp16_weights=module.weight.has_fp16_weights,
                CB=packed,
                SCB=scales,
            )


def _pack_4bit(model: PreTrainedModel) -> None:
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
