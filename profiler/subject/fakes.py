"""From the meta device to fake tensors: a model with every size and no memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from profiler.subject.attributes import attributes
from profiler.subject.quantization import quant_state_tensors


class Fakes:
    """Makes fake tensors for meta tensors; what shared a storage shares one again."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode
        self._bases: dict[int, torch.Tensor] = {}
        self._parameters: dict[int, torch.nn.Parameter] = {}
        self._kept: list[torch.Tensor] = []

    def tensor(self, meta: torch.Tensor) -> torch.Tensor:
        """A fake CPU tensor of the same size, stride and dtype."""
        storage = meta.untyped_storage()
        base = self._bases.get(storage._cdata)
        whole = meta.is_contiguous() and meta.numel() * meta.element_size() == storage.nbytes()
        if base is None and whole:  # nearly all are, and this is one op and not three
            with self.mode, torch.no_grad():
                base = torch.empty(meta.shape, dtype=meta.dtype, device="cpu")
            self._bases[storage._cdata] = base
            self._kept.append(meta)
            return base
        if base is None:
            with self.mode:
                base = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cpu")
            self._bases[storage._cdata] = base
            self._kept.append(meta)  # keeps the key's address taken
        with self.mode, torch.no_grad():
            flat = base.view(-1)
            flat = flat.view(meta.dtype) if meta.dtype != base.dtype else flat
            return flat.as_strided(meta.size(), meta.stride(), meta.storage_offset())

    def parameter(self, meta: torch.nn.Parameter) -> torch.nn.Parameter:
        """A fake parameter; attributes (a packed weight's state) come along, ties are kept."""
        known = self._parameters.get(id(meta))
        if known is None:
            known = torch.nn.Parameter(self.tensor(meta.data), requires_grad=meta.requires_grad)
            known.__dict__.update(
                {key: value for key, value in vars(meta).items() if key != "data"}
            )
            if type(meta) is not torch.nn.Parameter:
                known.__class__ = _named(type(meta).__name__)
            for key, value in list(vars(known).items()):
                if isinstance(value, torch.Tensor) and value.is_meta:
                    known.__dict__[key] = self.tensor(value)
            for name, tensor, holder in quant_state_tensors(known):
                if not isinstance(tensor, FakeTensor):
                    setattr(holder, name.removeprefix("nested_"), self.tensor(tensor))
            self._parameters[id(meta)] = known
            self._kept.append(meta)
        return known


@functools.cache
def _named(name: str) -> type[FakeTensor]:
    """A fake tensor's class under the name of a parameter's: peft asks a weight's class its name
    (peft/utils/integrations.py, `dequantize_bnb_weight`), and no subclass of it can be fake."""

    def detach(self: Any) -> Any:
        detached: Any = FakeTensor.detach(self)  # a parameter is made only of what detaches to it
        detached.__class__ = cls
        return detached

    def clone(self: Any, *args: Any, **kwargs: Any) -> Any:
        cloned: Any = FakeTensor.clone(self, *args, **kwargs)  # nor deep-copied otherwise
        cloned.__class__ = cls
        return cloned

    cls = type(name, (FakeTensor,), {"detach": detach, "clone": clone})
    return cls


@contextmanager
def int8_on_cpu() -> Iterator[None]:
    """An 8-bit weight's `to` as it is on a CPU (`Int8Params.to`): a new parameter that is its own
    `CB` again, whatever the first forward moved on to the module's state. peft asks for it where it
    dequantises (`dequantize_module_weight`), and only on a CPU."""
    cls: Any = _named("Int8Params")

    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        data = torch.Tensor.to(self.data, *args, **kwargs)
        moved: Any = torch.nn.Parameter(data, requires_grad=self.requires_grad)
        moved.has_fp16_weights = self.has_fp16_weights
        moved.CB, moved.SCB = moved.data, self.SCB
        moved.__class__ = cls
        return moved

    cls.to = to
    try:
        yield
    finally:
        del cls.to


def fill(model: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Replace every parameter, buffer and tensor attribute of a meta model by a fake one."""
    fakes = Fakes(mode)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = fakes.parameter(parameter)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = fakes.tensor(buffer)
        for holder, key, tensor in attributes(module):
            if tensor.is_meta:
                holder[key] = fakes.tensor(tensor)
