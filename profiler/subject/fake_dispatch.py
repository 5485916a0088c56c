"""Ops on fake tensors, each kind worked out once.

A step repeats the same few hundred ops on the same shapes thousands of times. `FakeTensorMode` has
a cache for that, which describes every argument anew by some twenty properties and asks the
dispatcher again for each; that is most of what a simulated step costs. Here an op is recognised by
what its result can depend on, and its result is made directly.

What is not plain is left to `FakeTensorMode`: ops whose result depends on values, literals, sparse
tensors, other libraries' ops, and what turned out not to be a function of the arguments' shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

_NAMESPACES = frozenset({"aten", "prims"})
_VALUES_DECIDE = (
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
)
_STRIDED = torch.strided


class _NotPlainError(Exception):
    """An argument or a result that is not described here."""


@dataclass(slots=True, frozen=True)
class _New:
    """A result with a storage of its own."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(slots=True, frozen=True)
class _View:
    """A result in the storage of an argument."""

    argument: int
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device


@dataclass(slots=True, frozen=True)
class _Same:
    """A result that is the argument itself, as of ops in place."""

    argument: int


_Result = _New | _View | _Same | None

#: What is known of a kind of op: the sequence that it gives, if any, and each result. None if
#: nothing can be.
_Known = tuple[Callable[[Any], Any] | None, tuple[_Result, ...]] | None


#: What is known of ops, for all models of a process: it depends on nothing but shapes.
_KNOWN: dict[Any, _Known] = {}

#: Ops that are kept; a step of a model has some hundreds. All are forgotten when there are more.
_MOST = 50_000


class FakeDispatch:
    """Runs ops under a `FakeTensorMode` that is active.

    Args:
        mode: the mode of all tensors; one with symbolic shapes is used as it is.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._plain: dict[Any, bool] = {}
        self._known = _KNOWN
        if len(_KNOWN) > _MOST:
            _KNOWN.clear()
        # `copy.deepcopy` looks at addresses.
        self._lets_look = getattr(mode, "_allow_unsafe_data_ptr_access", False)
        self._symbolic = mode.shape_env is not None
        self._attributes: dict[torch.device, dict[str, Any]] = {}

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The op's result, as `func(*args, **kwargs)` gives it."""
        plain = self._plain.get(func)
        if plain is None:
            plain = self._plain[func] = not self._symbolic and _is_plain(func)
        if not plain or torch.is_inference_mode_enabled():  # such tensors are of another kind
            return func(*args, **kwargs)
        try:
            key = _key(func, args, kwargs)
        except _NotPlainError:
            plain = False
        if not plain:
            return func(*args, **kwargs)
        if key not in self._known:
            return self._learn(key, func, args, kwargs)
        known = self._known[key]
        if known is None:
            return func(*args, **kwargs)
        sequence, results = known
        if sequence is None:
            return self._make(results[0], args)
        return sequence(self._make(result, args) for result in results)

    def _make(self, result: _Result, args: tuple[Any, ...]) -> Any:
        if type(result) is _New:
            guard = torch._C._DisableTorchDispatch()
            elem = torch.empty_strided(
                result.shape, result.stride, dtype=result.dtype, device="meta"
            )
            del guard
            return self.fake(elem, result.device)
        if type(result) is _View:
            storage = args[result.argument].untyped_storage()
            guard = torch._C._DisableTorchDispatch()
            elem = torch.empty(0, dtype=result.dtype, device="meta").set_(
                storage, result.offset, result.shape, result.stride
            )
            del guard
            return self.fake(elem, result.device)
        return args[result.argument] if type(result) is _Same else None

    def fake(self, elem: torch.Tensor, device: torch.device) -> FakeTensor:
        """`FakeTensor(mode, elem, device)`; its constructor does the same things each time."""
        attributes = self._attributes.get(device)
        if attributes is None:
            made = FakeTensor(self._mode, elem, device)
            self._attributes[device] = dict(made.__dict__)
            return made
        made = torch.Tensor._make_subclass(
            FakeTensor,
            elem,
            False,
            dispatch_device=True,
            device_for_backend_keys=device,
        )
        if self._lets_look:
            torch._C._set_warn_deprecated_on_mutable_data_ptr(made)
        else:
            torch._C._set_throw_on_mutable_data_ptr(made)
        made.__dict__.update(attributes)
        return made

    def _learn(self, key: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an op of a kind not seen before, and keep what there is to know of it."""
        out = func(*args, **kwargs)
        self._known[key] = None
        if _key(func, args, kwargs) != key:
            return out  # it changed an argument's shape
        outs = out if type(out) in (tuple, list) else (out,)
        if len({id(one) for one in outs if one is not None}) < sum(one is not None for one in outs):
            return out
        storages = _Storages(args, kwargs)
        try:
            results = tuple(storages.result(one) for one in outs)
        except _NotPlainError:
            return out
        owned = [
            one.untyped_storage()._cdata
            for one, result in zip(outs, results, strict=True)
            if type(result) is _New
        ]
        if len(set(owned)) == len(owned):
            self._known[key] = (type(out) if type(out) in (tuple, list) else None, results)
        return out


def _is_plain(func: Any) -> bool:
    """Whether an op's result is a matter of its arguments' shapes, as far as its tags tell."""
    return (
        isinstance(func, torch._ops.OpOverload)
        and func.namespace in _NAMESPACES
        and not any(tag in func.tags for tag in _VALUES_DECIDE)
        and not func._schema.name.startswith(("aten::lift", "aten::resize", "aten::set_"))
    )


def _key(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All that an op's result can depend on. Raises `_NotPlainError` for what is not covered."""
    key = (func, torch.get_default_dtype(), *_describe(args))
    return (*key, *kwargs, *_describe(kwargs.values())) if kwargs else key


def _describe(args: Any) -> list[Any]:
    key: list[Any] = []
    for argument in args:
        kind = type(argument)
        if isinstance(argument, torch.Tensor):
            if (
                not isinstance(argument, FakeTensor)
                or argument.constant is not None
                or argument.layout is not _STRIDED
                or argument.is_neg()
                or argument.is_conj()
            ):
                raise _NotPlainError
            key += (
                argument.shape,
                argument.stride(),
                argument.storage_offset(),
                argument.dtype,
                argument.fake_device,
            )
        elif kind is list or kind is tuple:
            key += (kind, len(argument), *_describe(argument))
        elif kind in _SCALARS:
            key += (kind, argument)
        else:
            raise _NotPlainError
    return key


_SCALARS = frozenset(
    {
        int,
        float,
        bool,
        str,
        type(None),
        torch.dtype,
        torch.device,
        torch.layout,
        torch.memory_format,
    }
)


class _Storages:
    """The storages of an op's arguments."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = args
        self._of_args: dict[int, int] = {}
        self._others = {_storage(one) for one in kwargs.values() if isinstance(one, torch.Tensor)}
        for index, argument in enumerate(args):
            if isinstance(argument, torch.Tensor):
                self._of_args.setdefault(_storage(argument), index)
            elif isinstance(argument, (list, tuple)):
                self._others.update(
                    _storage(one) for one in argument if isinstance(one, torch.Tensor)
                )

    def result(self, out: Any) -> _Result:
        """What to make a result from. Raises `_NotPlainError` if it is more than a shape."""
        if out is None:
            return None
        if not isinstance(out, FakeTensor) or out.layout is not _STRIDED:
            raise _NotPlainError
        for index, argument in enumerate(self._args):
            if argument is out:
                return _Same(index)
        key = _storage(out)
        special = out.constant is not None or out.is_neg() or out.is_conj() or out.requires_grad
        if special or key in self._others:
            raise _NotPlainError
        shape, stride, device = out.shape, out.stride(), out.fake_device
        owner = self._of_args.get(key)
        if owner is not None:
            return _View(owner, shape, stride, out.storage_offset(), out.dtype, device)
        nbytes = _extent(shape, stride) * out.element_size()
        if out.storage_offset() or out.untyped_storage().nbytes() != nbytes:
            raise _NotPlainError
        return _New(shape, stride, out.dtype, device)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _extent(shape: torch.Size, stride: tuple[int, ...]) -> int:
    """Elements from the first to the last of a strided tensor."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
