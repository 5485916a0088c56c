"""Methods that train some of the model's own parameters and add none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError, UsageError
from profiler.subject.methods.registry import Method, register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Selective(Method):
    """Trains the parameters that `selects` names; the dtype of an adapter has no meaning here."""

    def selects(self, name: str) -> bool:
        """Whether the parameter at this path is trained."""
        raise NotImplementedError

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> None:
        if options:
            raise UsageError(f"this method has no option {next(iter(options))!r}")
        if not any(self.selects(name) for name, _ in model.named_parameters()):
            raise UnsupportedError(
                f"{type(model).__name__} has no parameter that {type(self).__name__} would train"
            )

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.selects(name) and parameter.is_floating_point())
        return model


@register("full")
class FullFineTuning(Selective):
    """Every parameter is trained."""

    def selects(self, name: str) -> bool:
        return True


@register("bitfit")
class BitFit(Selective):
    """Every bias is trained, the norms' included (Ben Zaken et al., arXiv 2106.10199)."""

    def selects(self, name: str) -> bool:
        return name.rpartition(".")[2] == "bias"
