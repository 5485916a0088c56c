"""Several methods on one model, all of them trained: `lora&ia3`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from profiler.errors import UsageError
from profiler.subject.methods.peft_method import linear_names
from profiler.subject.methods.registry import Method

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: A method, its options, and which of them were given.
Part = tuple[Method, dict[str, Any], frozenset[str]]


class Joined(Method):
    """Applies its parts one after the other; what any of them trains is trained.

    Unlike a registered method it belongs to one cell, and keeps what each part returned.
    """

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self._applied: list[torch.nn.Module] = []
        # Instance attributes over the class's: what a part brings, the whole brings.
        self.quantization = self._agreed("quantization")  # type: ignore[misc]
        self.kbit_prepare = self._agreed("kbit_prepare")  # type: ignore[misc]
        self.optimizer = self._agreed("optimizer")  # type: ignore[misc]

    def _agreed(self, attribute: str) -> str | None:
        values = {getattr(method, attribute) for method, _, _ in self.parts} - {None}
        if len(values) > 1:
            raise UsageError(
                f"the joined methods bring different {attribute.replace('_', '-')}: "
                f"{' and '.join(sorted(values))}"
            )
        return next(iter(values), None)

    def refuses(self, *, checkpointing: str) -> str:
        reasons = (method.refuses(checkpointing=checkpointing) for method, _, _ in self.parts)
        return next((reason for reason in reasons if reason), "")

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        """The parts' configurations, each against the base model."""
        configs = [
            method.config(of_part, model, given=typed) for method, of_part, typed in self.parts
        ]
        for config in configs:
            # Else a later part would take an earlier part's layers for the model's.
            if config is not None and config.get("target_modules") == "all-linear":
                config["target_modules"] = linear_names(model)
        return {"joined": configs}

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        assert config is not None
        adapted: Any = model
        trained: set[int] = set()
        self._applied = []
        for (method, _, _), of_part in zip(self.parts, config["joined"], strict=True):
            adapted = method.apply(adapted, of_part, adapter_dtype=adapter_dtype, device=device)
            self._applied.append(adapted)
            # Each part freezes what it did not add.
            trained |= {id(one) for one in adapted.parameters() if one.requires_grad}
            for parameter in adapted.parameters():
                parameter.requires_grad_(id(parameter) in trained)
        return adapted

    def inputs(self, config: dict[str, Any] | None, batch_size: int) -> dict[str, torch.Tensor]:
        assert config is not None
        merged: dict[str, torch.Tensor] = {}
        for (method, _, _), of_part in zip(self.parts, config["joined"], strict=True):
            merged.update(method.inputs(of_part, batch_size))
        return merged

    def after_step(self, model: torch.nn.Module, config: dict[str, Any] | None, step: int) -> None:
        assert config is not None
        parts = zip(self.parts, self._applied, config["joined"], strict=True)
        for (method, _, _), applied, of_part in parts:
            method.after_step(applied, of_part, step)

    def state(self, model: torch.nn.Module) -> Iterable[torch.Tensor]:
        for (method, _, _), applied in zip(self.parts, self._applied, strict=True):
            yield from method.state(applied)
