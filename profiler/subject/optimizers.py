"""Optimizers by name: how each is built and what it keeps.

The choice that torch makes by device (foreach on CUDA, single-tensor on a CPU) is stated here, not
left to torch: a simulated GPU's tensors are on no GPU (torch/optim/optimizer.py,
`_default_to_fused_or_foreach`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from profiler.errors import unknown

if TYPE_CHECKING:
    import torch

#: `f(model, groups, cuda)`: most take the groups; some make their own from the model.
Builder = Callable[["torch.nn.Module", Iterable[Any], bool], "torch.optim.Optimizer"]

_OPTIMIZERS: dict[str, Builder] = {}
_PREPARATIONS: dict[str, Callable[[torch.nn.Module], None]] = {}


def _register(name: str) -> Callable[[Builder], Builder]:
    def add(builder: Builder) -> Builder:
        if name in _OPTIMIZERS:
            raise ValueError(f"optimizer {name!r} is registered twice")
        _OPTIMIZERS[name] = builder
        return builder

    return add


def names() -> tuple[str, ...]:
    """Names of the optimizers."""
    return tuple(sorted(_OPTIMIZERS))


def check(name: str) -> None:
    """Raise `UsageError` with the nearest names unless the optimizer is known."""
    if name not in _OPTIMIZERS:
        raise unknown("optimizer", name, _OPTIMIZERS)


def prepare(name: str, model: torch.nn.Module) -> None:
    """What an optimizer's construction changes of the model, before anything is counted."""
    if name in _PREPARATIONS:
        _PREPARATIONS[name](model)


def build(
    name: str, model: torch.nn.Module, groups: Iterable[Any], *, cuda: bool
) -> torch.optim.Optimizer:
    """The optimizer of a model, as it is chosen on a CUDA device or on a CPU.

    Args:
        groups: the parameters to train, or groups of them, as the stack makes them.
    """
    check(name)
    return _OPTIMIZERS[name](model, groups, cuda)


def warm_up(optimizer: torch.optim.Optimizer) -> None:
    """Build what a bitsandbytes optimizer computes from values, before values are fake.

    Its 8-bit states need a quantisation map, made by `.tolist()` and sorting
    (bitsandbytes/optim/optimizer.py, `fill_qmap`); 32-bit states need none.
    """
    if uses_maps(optimizer) and not optimizer.name2qmap:
        optimizer.fill_qmap()


def uses_maps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is a bitsandbytes optimizer with 8-bit states."""
    return getattr(getattr(optimizer, "args", None), "optim_bits", None) == 8


@_register("adamw")
def _adamw(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=1e-4, foreach=cuda, fused=False)


@_register("adamw-fused")
def _adamw_fused(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=1e-4, fused=True)


@_register("adamw-single")
def _adamw_single(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=1e-4, foreach=False, fused=False)


@_register("sgd")
def _sgd(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(groups, lr=1e-4, foreach=cuda, fused=False)


@_register("adamw-8bit")
def _adamw_8bit(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import bitsandbytes as bnb

    return bnb.optim.AdamW8bit(groups, lr=1e-4)


@_register("paged-adamw-8bit")
def _paged_adamw_8bit(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import bitsandbytes as bnb

    return bnb.optim.PagedAdamW8bit(groups, lr=1e-4)


@_register("paged-adamw-32bit")
def _paged_adamw_32bit(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import bitsandbytes as bnb

    return bnb.optim.PagedAdamW32bit(groups, lr=1e-4)
