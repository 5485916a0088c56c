"""Putting a method on a model without values, as it would be put on one with values.

The base model becomes fake tensors first: to the library they are on the device, not on meta, where
`peft` leaves steps out (moves and casts of what it adds). Some methods draw indices, count or
shuffle them while they are built; the few values that decide are carried along as shadows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from profiler.subject import fakes
from profiler.subject.attributes import attributes
from profiler.subject.fake_dispatch import FakeDispatch
from profiler.subject.places import Moves, Places
from profiler.subject.shadows import LIMIT, Shadows, asks

aten = torch.ops.aten
_DEVICE = torch.ops.prim.device.default

_SWAP = torch.utils.swap_tensors

#: Drawn numbers decide nothing but take most of the time that an adapter's construction takes.
_INITIALISED = frozenset({aten.uniform_.default, aten.normal_.default})


def _set_data(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """What `Module.to` does to a real parameter; a fake one it swaps, which weak references bar."""
    tensor.data = other


class _Mode(FakeTensorMode):
    """A tensor's copy has a copy of all that it refers to, and would be of another mode, for whose
    tensors ops in place allocate."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Mode:
        return self


class FakeBuild(TorchDispatchMode):
    """Inside, new tensors are fake, and small known values are followed.

    Attributes:
        mode: the fake tensors' mode; steps on the model run under it.
        shadows: the values that are known.
        cuda: whether the model is a GPU's; what a method leaves on the host is on meta then.
    """

    def __init__(self, *, cuda: bool) -> None:
        super().__init__()
        self.mode = _Mode(allow_non_fake_inputs=True)
        self.shadows = Shadows()
        self.cuda = cuda
        self._dispatch = FakeDispatch(self.mode)
        self._places = Places()
        self._moves = Moves(self._places)

    def __enter__(self) -> FakeBuild:
        self.mode.__enter__()
        super().__enter__()
        if self.cuda:
            self._moves.__enter__()
        torch.utils.swap_tensors = _set_data
        return self

    def __exit__(self, *error: Any) -> None:
        torch.utils.swap_tensors = _SWAP
        if self.cuda:
            self._moves.__exit__(*error)
        super().__exit__(*error)
        self.mode.__exit__(*error)

    def fill(self, model: torch.nn.Module) -> None:
        """Make a meta model's tensors fake."""
        fakes.fill(model, self.mode)

    def watch(self, landed: Callable[[torch.Tensor], None] | None) -> None:
        """From now on, say of each tensor that it was made on the device or sent to it."""
        self._places.landed = landed

    def settle(self, model: torch.nn.Module, *, moved: bool) -> None:
        """Make fake what a method left real: parameters, buffers, tensor attributes.

        Args:
            moved: whether the whole model is sent to the device afterwards; buffers go along, and
                tensor attributes do not.
        """
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None and not isinstance(parameter, FakeTensor):
                    module._parameters[name] = torch.nn.Parameter(
                        self.fake(parameter.data), requires_grad=parameter.requires_grad
                    )
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = self._settled(buffer, moved=moved)
            for holder, key, tensor in attributes(module):
                holder[key] = self._settled(tensor, moved=False)

    def _settled(self, tensor: torch.Tensor, *, moved: bool) -> torch.Tensor:
        """A fake tensor on the device, or on meta, which stands for the host."""
        if not self.cuda or moved or tensor.dim() == 0:  # one number is sent with the kernel
            return self.fake(tensor)
        real = not isinstance(tensor, FakeTensor)
        if not (not self._places.moved(tensor) if real else self._places.on_host(tensor)):
            return self.fake(tensor)
        return self.fake(tensor, device="meta")

    def fake(self, tensor: torch.Tensor, device: str = "cpu") -> torch.Tensor:
        """A fake tensor of the same size, stride and dtype that knows another one's values."""
        if isinstance(tensor, FakeTensor) and tensor.fake_device.type == device:
            return tensor
        with torch.no_grad(), self.mode:
            twin = torch.empty_strided(
                tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device
            )
        known = None if tensor.is_meta else self.shadows.value(tensor)
        if known is not None and known.numel() <= LIMIT:
            self.shadows.attach(twin, known)
        return twin

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard costs time

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        if func in _INITIALISED:
            self.shadows.forget(args[0])
            return args[0]
        if func is aten.detach.default and type(args[0]) is FakeTensor:
            with in_kernel_invocation_manager(self.mode):
                alias = func(args[0])
            return self._dispatch.fake(alias, args[0].fake_device)
        kwargs = kwargs or {}
        if not (len(args) == 1 and isinstance(args[0], FakeTensor)):
            args, kwargs = tree_map_only(torch.Tensor, self.fake, (args, kwargs))
        if asks(func):
            answer = self.shadows.answer(func, args, kwargs)
            if answer is not None:
                return answer[0]
        out = self._dispatch(func, args, kwargs)
        if func is aten._linalg_svd.default and self.cuda:
            # cuSOLVER's V is row-major, LAPACK's column-major
            # (torch/_meta_registrations.py, `linalg_svd_meta`).
            out = (*out[:2], out[2].contiguous())
        if not getattr(func, "is_view", False):
            self.shadows.follow(func, args, kwargs, out)
            if self.cuda:
                self._places.follow(args, kwargs, out)
        return out
