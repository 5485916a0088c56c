"""peft's optimizers for LoRA layers: LoRA-FA and LoRA+."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from profiler.errors import UsageError
from profiler.subject.optimizers.registry import LEARNING_RATE, register

if TYPE_CHECKING:
    import torch

#: Learning rate of B over that of A: what the paper recommends (Hayou et al., arXiv 2402.12354).
LORA_PLUS_RATIO = 16.0


def _check_lora(name: str, model: Any) -> None:
    from peft.tuners.lora import LoraLayer

    if not any(isinstance(module, LoraLayer) for module in model.modules()):
        raise UsageError(
            f"--optimizer {name} trains LoRA layers, and the method has none; use --method lora"
        )


def _check_pairs(model: Any) -> None:
    """LoRA-FA's step takes parameters with "lora" in their name two by two, as A and B."""
    pending = False
    for name, _ in model.named_parameters():
        if "lora" in name:
            if ("_B" if pending else "_A") not in name.rpartition("lora")[2]:
                raise UsageError(
                    f"--optimizer lora-fa knows pairs of lora_A and lora_B only, not {name}; "
                    "leave out use_dora, lora_bias and the like"
                )
            pending = not pending


def _lora_fa_optimizer(model: Any) -> torch.optim.Optimizer:
    import peft.optimizers

    create = getattr(peft.optimizers, "create_lorafa_optimizer", None)
    if create is None:
        raise UsageError(
            f"--optimizer lora-fa came with peft 0.16.0, and this is peft {peft.__version__}"
        )
    _check_lora("lora-fa", model)
    _check_pairs(model)
    config = model.peft_config[model.active_adapter]
    rest: dict[str, Any] = {}
    # Deprecated where its default is None: the layers' own scaling is read instead.
    if inspect.signature(create).parameters["use_rslora"].default is False:
        rest["use_rslora"] = config.use_rslora
    optimizer: torch.optim.Optimizer = create(
        model=model, r=config.r, lora_alpha=config.lora_alpha, lr=LEARNING_RATE, **rest
    )
    return optimizer


def _freeze_a(model: Any) -> None:
    _lora_fa_optimizer(model)


@register(
    "lora-fa",
    prepare=_freeze_a,
    approximations=("cuSOLVER's own workspace of LoRA-FA's pseudo-inverse is not counted.",),
    cpu_approximations=("What LoRA-FA's pseudo-inverse allocates inside is not counted.",),
)
def _lora_fa(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    """A is frozen, and B's gradient corrected by the pseudo-inverse of A Aᵀ
    (Zhang et al., arXiv 2308.03303). It is given every parameter, not the stack's groups."""
    return _lora_fa_optimizer(model)


def _needs_lora(model: Any) -> None:
    _check_lora("lora-plus", model)


@register("lora-plus", prepare=_needs_lora)
def _lora_plus(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
    """AdamW whose B learns faster than its A. It makes groups of its own."""
    import torch
    from peft.optimizers import create_loraplus_optimizer

    optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
        model=model,
        optimizer_cls=torch.optim.AdamW,
        lr=LEARNING_RATE,
        loraplus_lr_ratio=LORA_PLUS_RATIO,
        foreach=cuda,
        fused=False,
    )
    return optimizer
