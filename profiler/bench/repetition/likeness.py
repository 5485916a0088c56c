"""Which layers of a model are alike: by all that their modules hold, not by their names."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.stream import Labels

_ITSELF = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size, type)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
_USUAL = frozenset(vars(torch.nn.Module()))
_HOOKS = tuple(sorted(name for name in _USUAL if name.endswith("_hooks")))


def containers(model: torch.nn.Module, count: int) -> dict[str, Sequence[torch.nn.Module]]:
    """The lists of `count` modules in a model, by their paths; none within another."""
    found: dict[str, Sequence[torch.nn.Module]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, torch.nn.ModuleList) or len(module) != count:
            continue
        if not any(path.startswith(f"{other}.") for other in found):
            found[path] = list(module)
    return found


class Likeness:
    """Numbers layers: alike ones have one number, in all models that are compared.

    Two layers are alike if they hold the same modules with the same settings, tensors and hooks,
    but for numbers and names that count the layers; and if the model's config says the same of
    both.
    """

    def __init__(self) -> None:
        self._models: list[tuple[int, list[Any]]] = []
        self._outsides: list[tuple[int, list[Any]]] = []

    def classes(self, model: Any, count: int) -> list[int]:
        """A number for each layer of a model of `count` layers.

        Raises:
            NotPeriodicError: there is no list of layers.
        """
        lists = containers(model, count)
        if not lists:
            raise NotPeriodicError("its layers are in no list of modules")
        parts = [path.split(".") for path in lists]
        tails = {".".join(part[start:]) for part in parts for start in range(len(part))}
        describe = _Describing(Labels(sorted(tails, key=len, reverse=True)), model)
        said = [
            value
            for value in model.config.to_dict().values()
            if isinstance(value, list) and len(value) == count
        ]
        self._outsides.append((count, describe.outside(model, lists)))
        return [
            self._class(
                index,
                [
                    *(describe.module(layers[index]) for layers in lists.values()),
                    *(str(value[index]) for value in said),
                ],
            )
            for index in range(count)
        ]

    def check_outside(self) -> None:
        """What is in no layer must be the same in all models, or grow evenly with the depth.

        Raises:
            NotPeriodicError: it does not.
        """
        depths, outsides = zip(*self._outsides, strict=True)
        if not _even(depths, outsides):
            raise NotPeriodicError("what is outside of the layers does not follow from the depth")

    def _class(self, index: int, description: list[Any]) -> int:
        for number, (other, known) in enumerate(self._models):
            if _alike(description, known, index - other):
                return number
        self._models.append((index, description))
        return len(self._models) - 1


def _alike(one: Any, other: Any, shift: int) -> bool:
    """Whether two descriptions are equal, but for numbers that count layers."""
    if one == other and type(one) is type(other):
        return True
    if isinstance(one, (list, tuple)) and type(one) is type(other) and len(one) == len(other):
        return all(_alike(a, b, shift) for a, b in zip(one, other, strict=True))
    return type(one) is int and type(other) is int and one - other == shift


def _even(depths: Sequence[int], values: Sequence[Any]) -> bool:
    """Whether descriptions are equal, but for numbers and lengths that grow evenly with depth."""
    first = values[0]
    if all(value == first for value in values):
        return True
    if len({type(value) for value in values}) > 1:
        return False
    if isinstance(first, (list, tuple)):
        lengths = [len(value) for value in values]
        if len(set(lengths)) > 1:  # of layers, or of what they hold
            return _even(depths, lengths)
        return all(_even(depths, items) for items in zip(*values, strict=True))
    if type(first) is not int:
        return False
    return all(
        (value - first) * (depths[1] - depths[0]) == (values[1] - first) * (depth - depths[0])
        for depth, value in zip(depths, values, strict=True)
    )


class _Describing:
    def __init__(self, labels: Labels, model: torch.nn.Module) -> None:
        self._labels = labels  # of paths as any module between may have written them
        self._shared = _holders(model)

    def module(self, module: torch.nn.Module) -> list[Any]:
        return [self._one(path, one) for path, one in module.named_modules()]

    def outside(self, model: torch.nn.Module, lists: Iterable[str]) -> list[Any]:
        """What is in none of the lists."""
        inside = tuple(f"{path}." for path in lists)
        return [
            self._one(path, one)
            for path, one in model.named_modules()
            if not path.startswith(inside)
        ]

    def _one(self, path: str, module: torch.nn.Module) -> list[Any]:
        own = vars(module)
        held = [
            (name, self._tensor(tensor))
            for kind in (module._parameters, module._buffers)
            for name, tensor in kind.items()
        ]
        rest = [(name, self._value(value, 3)) for name, value in own.items() if name not in _USUAL]
        hooks = [len(own[name]) for name in _HOOKS if own[name]]
        return [path, type(module), module.training, hooks, held, rest]

    def _tensor(self, tensor: torch.Tensor | None) -> Any:
        if tensor is None:
            return None
        state = getattr(tensor, "quant_state", None)
        return (
            type(tensor).__name__,
            tuple(tensor.shape),
            tensor.stride() if tensor.layout is torch.strided else None,
            tensor.dtype,
            tensor.device,
            tensor.requires_grad,
            self._shared.get(id(tensor)),
            None if state is None else self._value(vars(state), 3),
        )

    def _value(self, value: Any, depth: int) -> Any:
        """A value as what can be compared: what has no such form, by its type."""
        if isinstance(value, str):
            path, label = self._labels.of(value)
            return value if label is None else (path, label)
        if isinstance(value, _ITSELF):
            return value
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, torch.nn.Module):
            return type(value)
        if isinstance(value, _CODE):
            return getattr(value, "__qualname__", type(value))
        if not depth:
            return type(value)
        if isinstance(value, (list, tuple)):
            return [type(value), *(self._value(item, depth - 1) for item in value)]
        if isinstance(value, (set, frozenset)):
            return [type(value), *sorted(map(str, value))]
        if isinstance(value, dict):
            return [
                (self._value(key, depth - 1), self._value(item, depth - 1))
                for key, item in value.items()
            ]
        # A config is one for all layers, and a hook's handle a number that counts all hooks.
        if type(value).__name__.endswith("Config") or isinstance(value, RemovableHandle):
            return type(value)
        return [type(value), self._value(getattr(value, "__dict__", None), depth - 1)]


def _holders(model: torch.nn.Module) -> dict[int, str]:
    """The first place of each tensor that has several."""
    first: dict[int, str] = {}
    shared: dict[int, str] = {}
    for path, module in model.named_modules():
        for kind in (module._parameters, module._buffers):
            for name, tensor in kind.items():
                if tensor is None:
                    continue
                if id(tensor) in first:
                    shared[id(tensor)] = first[id(tensor)]
                else:
                    first[id(tensor)] = f"{path}.{name}"
    return shared


def period(classes: Sequence[int]) -> tuple[int, int]:
    """(period, layers at the ends that are not part of it) of layers by their numbers.

    Raises:
        NotPeriodicError: layers differ without a pattern.
    """
    for length in range(1, len(classes) // 4 + 1):
        for edge in range(len(classes) // 4 + 1):
            for front in range(edge + 1):
                middle = classes[front : len(classes) - (edge - front)]
                if all(a == b for a, b in zip(middle, middle[length:], strict=False)):
                    return length, edge
    raise NotPeriodicError("its layers differ, and not in a regular order")
