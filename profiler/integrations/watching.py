"""A live loop under the storage tracker: real tensors, or fakes in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map_only

from profiler.bench.subject_trace import register, register_maps, tensors
from profiler.bench.tracker import StorageTracker
from profiler.errors import UsageError
from profiler.integrations.phases import Listener, Phases, tokens
from profiler.integrations.swapping import LiveFakes
from profiler.record import Params
from profiler.subject.optimizers import states
from profiler.subject.subject import Subject

_DEVICE = torch.ops.prim.device.default
_LITERAL = torch.ops.aten.lift_fresh.default

#: Categories that a later role may take over (`profiler.bench.subject_trace`).
_WEAK = frozenset({"kv_cache"})


class LiveTracker(StorageTracker):
    """The tracker of a loop that was not written for it.

    Attributes:
        fakes: makes a fake of each real tensor that an op is given; None lets them be.
        phases: is told that ops run.
    """

    fakes: LiveFakes | None = None
    phases: Phases | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not _DEVICE:
            kwargs = kwargs or {}
            if (
                self.fakes is not None
                and func is not _LITERAL
                and (_real(args) or (kwargs and _real(kwargs.values())))
            ):
                _refuse_writes(func, args, kwargs)
                args, kwargs = tree_map_only(torch.Tensor, self._brought, (args, kwargs))
            if self.phases is not None and not getattr(func, "is_view", False):
                self.phases.worked()
        return super().__torch_dispatch__(func, types, args, kwargs)

    def on_host(self, tensor: torch.Tensor) -> None:
        """A tensor that is in no GPU's memory."""
        storage = tensor.untyped_storage()
        self._forget_later(storage, storage._cdata, -1)

    def _brought(self, tensor: torch.Tensor) -> torch.Tensor:
        """The fake of a real tensor that the loop brings along."""
        if isinstance(tensor, FakeTensor):
            return tensor
        if tensor.requires_grad and torch.is_grad_enabled():
            raise UsageError(
                f"step() computes gradients of a tensor of shape {tuple(tensor.shape)} that is "
                "neither the model's nor the optimizer's; give the module that holds it as model="
            )
        assert self.fakes is not None
        fake = self.fakes.input(tensor)
        if self.rules.host and tensor.dim() == 0 and not self._is_known(fake):
            self.on_host(fake)
        else:
            self.given(fake)
        return fake

    def given(self, tensor: torch.Tensor) -> None:
        """Count what the loop has made or brought along for the model."""
        if self._is_known(tensor):
            self.role(tensor, "inputs", frozenset())
        else:
            self.register(tensor, "inputs", "", "input")

    def _is_known(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._live


def _real(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, torch.Tensor):
            if not isinstance(value, FakeTensor):
                return True
        elif type(value) in (list, tuple) and _real(value):
            return True
    return False


def _refuse_writes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not hasattr(func, "_schema"):
        return
    schema = func._schema
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        if value is not None and _real([value]):
            raise UsageError(
                f"step() writes to a real tensor ({schema.name}) that is neither the model's nor "
                "the optimizer's; a simulation leaves it alone: make it inside step(), or give "
                "the module or optimizer that holds it"
            )


class Roles(Listener):
    """Tells the tracker a loop's phases, and what its tensors are for."""

    def __init__(self, tracker: LiveTracker, model: torch.nn.Module) -> None:
        self.tracker = tracker
        self.tokens: dict[int, int] = {}
        self._model = model

    def phase(self, name: str) -> None:
        self.tracker.phase(name)

    def forward_begins(self, inputs: dict[str, Any]) -> None:
        step = self.tracker.step
        self.tokens[step] = self.tokens.get(step, 0) + tokens(inputs)
        for value in inputs.values():
            # A real one becomes a fake when an op is given it.
            if isinstance(value, torch.Tensor) and (
                self.tracker.fakes is None or isinstance(value, FakeTensor)
            ):
                self.tracker.given(value)

    def forward_done(self, outputs: Any) -> None:
        for tensor in tensors(getattr(outputs, "past_key_values", None)):
            self.tracker.role(tensor, "kv_cache", frozenset())

    def backward_done(self) -> None:
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                module = self.tracker.paths.of_parameter(parameter)
                self.tracker.role(parameter.grad, "gradients", _WEAK, module)

    def optimizer_done(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter, state in states(optimizer):
            module = self.tracker.paths.of_parameter(parameter)
            for tensor in tensors(state):
                self.tracker.role(tensor, "optimizer_state", _WEAK, module)


def register_live(
    tracker: LiveTracker,
    model: torch.nn.Module,
    adapter_names: frozenset[str],
    params: Params,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Count what is in memory before the loop's next step, module by module."""
    subject = Subject(model, adapter_names, cast(Any, None), None, params, vocab_size=0)
    register(tracker, subject)
    for path, module in model.named_modules():
        # An 8-bit layer's first forward moves them there (`Linear8bitLt.init_8bit_state`).
        scales = getattr(getattr(module, "state", None), "SCB", None)
        if isinstance(scales, torch.Tensor):
            tracker.register(scales, "quantization_state", path, "quantize")
    for parameter in model.parameters():
        if parameter.grad is not None:
            module = tracker.paths.of_parameter(parameter)
            tracker.register(parameter.grad, "gradients", module, "gradient")
    if optimizer is None:
        return
    register_maps(tracker, optimizer)
    on_device = {
        id(parameter): bool(group.get("fused") or group.get("capturable"))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for parameter, state in states(optimizer):
        module = tracker.paths.of_parameter(parameter)
        for tensor in tensors(state):
            # A step's count is on the host, but for optimizers that read it on the device
            # (torch/optim/adam.py, `_init_group`).
            if tracker.rules.host and tensor.dim() == 0 and not on_device.get(id(parameter)):
                tracker.on_host(tensor)
            else:
                tracker.register(tensor, "optimizer_state", module, "optimizer_state")
