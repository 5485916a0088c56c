"""Delta-LoRA (Zi et al., arXiv 2309.02411): LoRA whose frozen weights follow the product's change.

After the optimizer's step t (from 0) beyond step K,

    W += lambda * (alpha / r) * (B[t+1] A[t+1] - B[t] A[t])

(Algorithm 1 there; A and B as peft names them). W needs no gradient and no moments for that, but
the A and B of the step before are kept. There is no dropout: with it, the product's gradient would
not be W's (section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError, UsageError
from profiler.subject.methods.lora import Lora
from profiler.subject.methods.registry import Method, register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: Attribute of a LoRA layer that holds A and B as they were after the step before.
_PREVIOUS = "delta_lora_previous"

_OWN = ("delta_lambda", "delta_start")


@register("delta-lora")
class DeltaLora(Method):
    """LoRA that also moves the weights it adapts; those cannot be quantised.

    Options: those of `lora`; `delta_lambda`, the update ratio (2 in the paper's experiments);
    `delta_start`, the steps K without a move. The paper has K = 500 for its long runs; 0 here, so
    that a profile of a few steps is one of Delta-LoRA's own steps.
    """

    defaults = {**Lora.defaults, "lora_dropout": 0.0, "delta_lambda": 2.0, "delta_start": 0}

    #: LoRA by composition: a config file of type LORA must not find this method by its type.
    _lora = Lora()

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        own = {name: options[name] for name in _OWN}
        ratio, start = own["delta_lambda"], own["delta_start"]
        if (
            isinstance(ratio, bool)
            or not isinstance(ratio, (int, float))
            or not math.isfinite(ratio)
        ):
            raise UsageError(f"delta-lora: delta_lambda must be a number, not {ratio!r}")
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise UsageError(f"delta-lora: delta_start must be 0 or more steps, not {start!r}")
        rest = {key: value for key, value in options.items() if key not in _OWN}
        config = self._lora.config(rest, model, given=given - set(_OWN))
        for name in ("lora_dropout", "use_dora", "lora_bias"):
            if config.get(name):
                raise UsageError(
                    f"delta-lora has no {name}: its weights follow the product of A and B alone"
                )
        return {**config, **own}

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        assert config is not None
        rest = {key: value for key, value in config.items() if key not in _OWN}
        adapted = self._lora.apply(model, rest, adapter_dtype=adapter_dtype, device=device)
        for layer, _, _ in _factors(adapted):
            if not layer.get_base_layer().weight.is_floating_point():
                raise UnsupportedError(
                    "delta-lora moves the weights it adapts, and quantised ones cannot be moved; "
                    "use --quantization none"
                )
        return adapted

    def after_step(self, model: torch.nn.Module, config: dict[str, Any] | None, step: int) -> None:
        assert config is not None
        first = config["delta_start"] + 2  # t > K, and `step` is t + 1
        if step < first - 1:
            return
        for layer, a, b in _factors(model):
            previous = getattr(layer, _PREVIOUS, None)
            if previous is None:
                setattr(layer, _PREVIOUS, (a.detach().clone(), b.detach().clone()))
                continue
            _move(layer, a.detach(), b.detach(), *previous, ratio=config["delta_lambda"])
            previous[0].copy_(a.detach())
            previous[1].copy_(b.detach())

    def state(self, model: torch.nn.Module) -> Iterable[torch.Tensor]:
        for layer, _, _ in _factors(model):
            yield from getattr(layer, _PREVIOUS, ())


def _factors(model: torch.nn.Module) -> Iterator[tuple[Any, torch.Tensor, torch.Tensor]]:
    """Each linear LoRA layer of a model, with its A (r, in) and B (out, r)."""
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name in layer.lora_A:
                yield layer, layer.lora_A[name].weight, layer.lora_B[name].weight


def _move(
    layer: Any,
    a: torch.Tensor,
    b: torch.Tensor,
    previous_a: torch.Tensor,
    previous_b: torch.Tensor,
    *,
    ratio: float,
) -> None:
    """Add the product's change to the weight; it is computed in the adapter's dtype."""
    weight = layer.get_base_layer().weight.detach()
    change = (b @ a).addmm_(previous_b, previous_a, alpha=-1)
    (name,) = layer.lora_A
    if layer.fan_in_fan_out:  # a weight of shape (in, out), as GPT-2's
        change = change.T
    weight.add_(change.to(weight.dtype), alpha=ratio * layer.scaling[name])
