"""Which of a method's tensors stay on the host, on a machine with a GPU.

A library makes what it adds on the host and moves it to the base weights' device, tensor by tensor.
A buffer that it forgets stays behind, and each use copies it to the device anew (BOFT's permutation
matrices). Fake tensors are all in one place, so what happened to each is noted here instead: what
is made from nothing is on the host, what is computed from it too, and whatever is sent to a device
is there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

_TO = torch.Tensor.to


class _Storage(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("host", "key")
    key: int
    host: bool


class Places:
    """Remembers of each storage whether it is on the host; what it never saw is on the device.

    Attributes:
        landed: is told of each tensor that is put on the device.
    """

    def __init__(self) -> None:
        self.landed: Callable[[torch.Tensor], None] | None = None
        self._storages: dict[int, _Storage] = {}

    def on_host(self, tensor: torch.Tensor) -> bool:
        known = self._known(tensor)
        return known is not None and known.host

    def moved(self, tensor: torch.Tensor) -> bool:
        """Whether it is known to have been sent to the device."""
        known = self._known(tensor)
        return known is not None and not known.host

    def put(self, tensor: torch.Tensor, *, host: bool) -> None:
        if tensor.layout is not torch.strided:
            return
        storage = tensor.untyped_storage()
        known = _Storage(storage, self._died)
        known.key, known.host = storage._cdata, host
        self._storages[known.key] = known
        if self.landed is not None and not host:
            self.landed(tensor)

    def follow(self, args: Any, kwargs: Any, out: Any) -> None:
        """An op ran that is no view: its results are where its arguments are."""
        inputs = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        host = all(self.on_host(tensor) for tensor in inputs)
        for leaf in tree_iter(out):
            if isinstance(leaf, torch.Tensor) and not any(leaf is tensor for tensor in inputs):
                self.put(leaf, host=host)

    def _known(self, tensor: torch.Tensor) -> _Storage | None:
        if tensor.layout is not torch.strided:
            return None
        return self._storages.get(tensor.untyped_storage()._cdata)

    def _died(self, known: _Storage) -> None:
        if self._storages.get(known.key) is known:
            del self._storages[known.key]


class Moves(TorchFunctionMode):
    """Notes what is made on, or sent to, a device that is named by a tensor's own `device`.

    A device named by its word ("cpu") is the host.
    """

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not kwargs:
            if func is not _TO:  # nearly all
                return func(*args)
            kwargs = {}
        out = func(*args, **kwargs)
        if isinstance(kwargs.get("device"), torch.device):
            device = True
        elif func is _TO:
            device = any(isinstance(value, torch.device) for value in args[1:])
            for other in (*args[1:], kwargs.get("other")):
                if isinstance(other, torch.Tensor):
                    device = not self.places.on_host(other)
        else:
            return out
        if device:
            for leaf in tree_iter(out):
                if isinstance(leaf, torch.Tensor):
                    self.places.put(leaf, host=False)
        return out
