"""Methods that train some of the model's own parameters and add none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError, UsageError, unknown
from profiler.subject.methods.layers import decoder_layers, is_norm
from profiler.subject.methods.registry import Method, register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Selective(Method):
    """Trains the parameters that `selected` names; the dtype of an adapter has no meaning here.

    A packed (quantised) weight cannot be trained and stays frozen.
    """

    def selected(self, model: PreTrainedModel, options: dict[str, Any]) -> set[str]:
        """Paths of the parameters that are trained. Options have been checked by name."""
        raise NotImplementedError

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any] | None:
        for key in options:
            if key not in self.defaults:
                if not self.defaults:
                    raise UsageError(f"this method has no option {key!r}")
                raise unknown("option:", key, self.defaults)
        if not self.selected(model, options):
            raise UnsupportedError(
                f"{type(model).__name__} has no parameter that {type(self).__name__} would train"
            )
        return dict(options) or None

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        selected = self.selected(model, config or {})
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in selected and parameter.is_floating_point())
        return model


@register("full")
class FullFineTuning(Selective):
    """Every parameter is trained."""

    per_module = True

    def selected(self, model: PreTrainedModel, options: dict[str, Any]) -> set[str]:
        return {name for name, _ in model.named_parameters()}


@register("bitfit")
class BitFit(Selective):
    """Every bias is trained, the norms' included (Ben Zaken et al., arXiv 2106.10199)."""

    per_module = True

    def selected(self, model: PreTrainedModel, options: dict[str, Any]) -> set[str]:
        return {name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias"}


@register("norm-tuning")
class NormTuning(Selective):
    """Every norm's scale and bias are trained, wherever it stands (Zhao et al., arXiv 2312.11420,
    train those of the attention blocks)."""

    per_module = True

    def selected(self, model: PreTrainedModel, options: dict[str, Any]) -> set[str]:
        return {
            f"{path}.{name}"
            for path, module in model.named_modules()
            if is_norm(module)
            for name, _ in module.named_parameters(recurse=False)
        }


@register("last-k")
class LastLayers(Selective):
    """The last `k` decoder layers are trained (Lee et al., arXiv 1911.03090).

    Only they: the final norm and the head stay frozen, since a head that is tied to the embedding
    would train the model's input, too.
    """

    defaults = {"k": 2}

    def selected(self, model: PreTrainedModel, options: dict[str, Any]) -> set[str]:
        layers = decoder_layers(model)
        k = options["k"]
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(layers):
            raise UsageError(f"last-k: k must be an integer from 1 to {len(layers)}, not {k!r}")
        return {
            f"{path}.{name}" for path, layer in layers[-k:] for name, _ in layer.named_parameters()
        }
