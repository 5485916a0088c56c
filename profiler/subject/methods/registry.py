"""What a method is, and the table of them by preset name. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.errors import UsageError, unknown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Method:
    """One way to fine-tune. A subclass is registered by `@register("name")` and has no state.

    Attributes:
        defaults: the preset's options.
        quantization, kbit_prepare, optimizer: what the method brings with it; None leaves the
            choice to the stack (quantization: none).
        per_module: what is put on a module, and what it does in a step, follows from that module
            and the options alone: not from where it stands, nor from how many there are. A deep
            model's simulation then need not build all of its layers (`profiler.bench.repetition`).
            A subclass with code of its own must say so again.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    quantization: ClassVar[str | None] = None
    kbit_prepare: ClassVar[str | None] = None
    optimizer: ClassVar[str | None] = None
    per_module: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        own = vars(cls)
        if "per_module" not in own and any(hasattr(value, "__get__") for value in own.values()):
            cls.per_module = False

    def refuses(self, *, checkpointing: str) -> str:
        """Why the method cannot be trained so, "" if it can."""
        return ""

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any] | None:
        """The full configuration as JSON values, None for a method without one.

        Args:
            options: the preset's options with the given ones over them.
            model: the base model on the meta device.
            given: names of the options that a person typed.

        Raises:
            UsageError: an option is unknown or has a wrong value.
            UnsupportedError: the method has nothing to train on this model.
        """
        raise NotImplementedError

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        """Put the method on a model and set `requires_grad`. Returns what is trained.

        Args:
            config: what `config` gave.
            adapter_dtype: dtype of the parameters that are added.
            device: where they are made; "meta" for a simulation.
        """
        raise NotImplementedError

    def inputs(self, config: dict[str, Any] | None, batch_size: int) -> dict[str, torch.Tensor]:
        """Further arguments of the forward, beside ids, mask and labels; real values."""
        return {}

    def after_step(self, model: torch.nn.Module, config: dict[str, Any] | None, step: int) -> None:
        """What the method does after each optimizer step, while gradients are still there.

        Args:
            model: what `apply` returned.
            step: 1 for the first optimizer step.
        """

    def state(self, model: torch.nn.Module) -> Iterable[torch.Tensor]:
        """Tensors that `after_step` keeps from step to step; they count as optimizer state."""
        return ()


_METHODS: dict[str, Method] = {}


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Register a `Method` under a preset name. A name can be taken once."""

    def add(cls: type[Method]) -> type[Method]:
        if name in _METHODS:
            raise ValueError(f"method {name!r} is registered twice")
        _METHODS[name] = cls()
        return cls

    return add


def names() -> tuple[str, ...]:
    """Names of the presets."""
    return tuple(sorted(_METHODS))


#: Other packages register methods under this entry point group: a name, and a `Method`'s class.
ENTRY_POINTS = "peft_profiler.methods"


def get(name: str) -> Method:
    """The method of a preset, registered here or by another package's entry point.

    Raises:
        UsageError: no such preset, with the nearest names; or the entry point is no `Method`.
    """
    if name in _METHODS:
        return _METHODS[name]
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    if name not in points:
        raise unknown(
            "method", name, [*_METHODS, *points], hint=" (or the path of an adapter_config.json)"
        )
    cls = points[name].load()
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UsageError(f"the entry point {name!r} of {ENTRY_POINTS} is no Method")
    return cls()
