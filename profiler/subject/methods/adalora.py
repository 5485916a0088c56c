"""AdaLoRA (Zhang et al., arXiv 2303.10512)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    import torch


@register("adalora")
class AdaLora(PeftMethod):
    """LoRA as a singular value decomposition, whose ranks are reallocated while it trains.

    Ranks, schedule and penalty are peft's defaults; `total_step`, which has none, is 1,000. Each
    step profiled is one that reallocates (`tinit` to `total_step - tfinal`, every `deltaT`): the
    most that a step of the run costs.
    """

    peft_type = "ADALORA"
    defaults = {"total_step": 1000}

    def after_step(self, model: torch.nn.Module, config: Any, step: int) -> None:
        """Update the importance of each rank, and mask the least."""
        numbers = range(
            config["tinit"] + config["deltaT"],
            config["total_step"] - config["tfinal"],
            config["deltaT"],
        )
        tuner: Any = model.base_model
        tuner.update_and_allocate(numbers[(step - 1) % len(numbers)] if numbers else step)

    def state(self, model: torch.nn.Module) -> Iterable[torch.Tensor]:
        """The importances and their moving averages, one number for each of A, B and E."""
        allocator: Any = model.base_model.rankallocator
        for scores in (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc):
            yield from scores.values()
