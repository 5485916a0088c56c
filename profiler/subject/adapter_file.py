"""How large the file of a trained adapter is, from names, shapes and dtypes; nothing is written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

#: What `peft` writes beside the tensors (peft/peft_model.py, `save_pretrained`).
_METADATA = {"format": "pt"}


def adapter_file_bytes(model: torch.nn.Module) -> int:
    """Size in bytes of the safetensors file that the trained adapter would be saved to.

    `adapter_config.json` is not counted. Of several adapters each is saved to a file of its own,
    and the sum is given.

    Args:
        model: as of `saved_tensors`.
    """
    return sum(map(file_bytes, saved_tensors(model)))


def saved_tensors(model: torch.nn.Module) -> list[dict[str, torch.Tensor]]:
    """The tensors of each file that the trained adapter would be saved to, by name.

    For a `peft` model, the `adapter_model.safetensors` of its `save_pretrained`; which tensors that
    holds, and under which names, `peft` itself says. For any other model, one file of the tensors
    that are trained, tied ones once.

    It is the adapter as it is when asked: AdaLoRA prunes ranks while it trains, and what is left of
    them depends on the data.

    Args:
        model: the adapted model: in memory, on the meta device or of fake tensors. None of its
            values is read, no tensor copied, no random number drawn.
    """
    from peft import PeftMixedModel, PeftModel

    if isinstance(model, PeftModel | PeftMixedModel):
        return [_saved(model, name) for name in model.peft_config]
    return [{name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}]


def file_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Size in bytes of the safetensors file of these tensors with `peft`'s metadata.

    Eight bytes of length, the header as JSON, padded with spaces to a multiple of eight, then the
    tensors without gaps (github.com/huggingface/safetensors, README.md, "Format"). The library
    itself orders the tensors and names their dtypes: it serialises empty ones. Only shapes and
    offsets are put in here.
    """
    from safetensors.torch import save

    empty = {
        dtype: torch.empty(0, dtype=dtype, device="cpu")
        for dtype in {tensor.dtype for tensor in tensors.values()}
    }
    sample = save({name: empty[tensor.dtype] for name, tensor in tensors.items()}, _METADATA)
    length = int.from_bytes(sample[:8], "little")
    header: dict[str, Any] = json.loads(sample[8 : 8 + length])
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entry.update(shape=list(tensor.shape), data_offsets=[begin, end])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + len(text) + -len(text) % 8 + end


def _saved(model: Any, adapter: str) -> dict[str, torch.Tensor]:
    """What `save_pretrained` writes of an adapter; what it computes for it is fake.

    Shared tensors are there under each of their names, as `peft` saves them (it clones them).
    """
    from peft import get_peft_model_state_dict

    mode = _fake_mode(model)
    with (
        _offline(model.peft_config[adapter]),
        _fake_prompt_encoder(model, mode),
        warnings.catch_warnings(),
        mode,
        _AsOfZeros(),
    ):
        warnings.simplefilter("ignore")
        saved: dict[str, torch.Tensor] = get_peft_model_state_dict(
            model, state_dict=dict(_persistent(model)), adapter_name=adapter
        )
    return saved


class _AsOfZeros(TorchDispatchMode):
    """Takes the branches that zeros would take, where fakes have no value to decide by.

    CPT asks whether any embedding has moved (peft/tuners/cpt/model.py, `get_projection`); no shape
    depends on it.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        return func(*args, **(kwargs or {}))


@contextmanager
def _fake_prompt_encoder(model: torch.nn.Module, mode: FakeTensorMode) -> Iterator[None]:
    """Give a prompt encoder fake parameters for a while: it is run, and CPT's sets its own anew."""
    encoder = getattr(model, "prompt_encoder", None)
    modules = list(encoder.modules()) if isinstance(encoder, torch.nn.Module) else []
    kept = [(module._parameters, dict(module._parameters)) for module in modules]
    try:
        with mode:
            for parameters, before in kept:
                for name, item in before.items():
                    if item is not None:
                        data = torch.empty(item.shape, dtype=item.dtype)
                        parameters[name] = torch.nn.Parameter(data, item.requires_grad)
        yield
    finally:
        for parameters, before in kept:
            parameters.update(before)


def _fake_mode(model: torch.nn.Module) -> Any:
    """The mode of the model's fake tensors, as modes cannot be mixed; for others a new one."""
    for parameter in model.parameters():
        if isinstance(parameter, FakeTensor):
            return parameter.fake_mode
    return FakeTensorMode(allow_non_fake_inputs=True)


def _persistent(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The names and tensors of `state_dict()`, without what modules make for it.

    bitsandbytes packs the quantisation state of each weight, from values; an adapter's file never
    has it.
    """
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield prefix + name, tensor


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    """Keep `peft` from asking the Hub for the base model's vocabulary size.

    It would, to save embeddings that were resized (peft/utils/save_and_load.py); none was here.
    """
    kept = config.base_model_name_or_path
    config.base_model_name_or_path = None
    try:
        yield
    finally:
        config.base_model_name_or_path = kept
