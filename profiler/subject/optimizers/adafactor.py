"""Adafactor (Shazeer and Stern, arXiv 1804.04235): factored second moments, no first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from profiler.subject.optimizers.registry import LEARNING_RATE, register

if TYPE_CHECKING:
    import torch


@register("adafactor")
def _adafactor(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    """As `Trainer` builds it (transformers/trainer_optimizer.py, `_get_adafactor`)."""
    from transformers.optimization import Adafactor

    return Adafactor(groups, lr=LEARNING_RATE, scale_parameter=False, relative_step=False)
