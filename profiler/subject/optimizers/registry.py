"""The table of optimizers by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.errors import unknown

if TYPE_CHECKING:
    import torch

#: `f(model, groups, cuda)`: most take the groups; some make their own from the model.
Builder = Callable[["torch.nn.Module", Iterable[Any], bool], "torch.optim.Optimizer"]

#: Learning rate of every optimizer; no byte and no FLOP depends on it.
LEARNING_RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class _Entry:
    build: Builder
    prepare: Callable[[torch.nn.Module], None] | None
    approximations: tuple[str, ...]
    cpu_approximations: tuple[str, ...]


_OPTIMIZERS: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    prepare: Callable[[torch.nn.Module], None] | None = None,
    approximations: tuple[str, ...] = (),
    cpu_approximations: tuple[str, ...] = (),
) -> Callable[[Builder], Builder]:
    """Register a builder under a name, which can be taken once.

    Args:
        prepare: what building it changes of the model, and what it asks of it (`UsageError`).
        approximations: what a simulated GPU does not model of its step, one sentence each.
        cpu_approximations: what is not seen of it on a CPU, neither measured nor simulated.
    """

    def add(builder: Builder) -> Builder:
        if name in _OPTIMIZERS:
            raise ValueError(f"optimizer {name!r} is registered twice")
        _OPTIMIZERS[name] = _Entry(
            build=builder,
            prepare=prepare,
            approximations=approximations,
            cpu_approximations=cpu_approximations,
        )
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
    """What an optimizer's construction changes of the model, before anything is counted.

    Raises:
        UsageError: the optimizer cannot train this model.
    """
    check(name)
    entry = _OPTIMIZERS[name]
    if entry.prepare is not None:
        entry.prepare(model)


def build(
    name: str, model: torch.nn.Module, groups: Iterable[Any], *, cuda: bool
) -> torch.optim.Optimizer:
    """The optimizer of a model, as it is chosen on a CUDA device or on a CPU.

    Args:
        groups: the parameters to train, or groups of them, as the stack makes them.
    """
    check(name)
    return _OPTIMIZERS[name].build(model, groups, cuda)


def approximations(name: str, *, cuda: bool) -> tuple[str, ...]:
    """What is not exact of an optimizer's step on a simulated GPU, or on a CPU."""
    entry = _OPTIMIZERS[name]
    return entry.approximations if cuda else entry.cpu_approximations
