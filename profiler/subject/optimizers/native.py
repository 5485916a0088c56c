"""Torch's own optimizers.

The choice that torch makes by device (foreach on CUDA, single-tensor on a CPU) is stated here, not
left to torch: a simulated GPU's tensors are on no GPU (torch/optim/optimizer.py,
`_default_to_fused_or_foreach`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from profiler.subject.optimizers.registry import LEARNING_RATE, register

if TYPE_CHECKING:
    import torch


@register("adamw")
def _adamw(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=LEARNING_RATE, foreach=cuda, fused=False)


@register("adamw-fused")
def _adamw_fused(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)


@register("adamw-single")
def _adamw_single(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=LEARNING_RATE, foreach=False, fused=False)


@register("sgd")
def _sgd(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(groups, lr=LEARNING_RATE, foreach=cuda, fused=False)
