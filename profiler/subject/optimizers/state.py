"""What an optimizer keeps: its states by parameter, and 8-bit optimizers' quantisation maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def states(optimizer: torch.optim.Optimizer) -> Iterator[tuple[torch.Tensor, Any]]:
    """Each parameter that has a state, with its state.

    peft's LoRA-FA keys states by name: a pair's by the name up to "lora", for the B that learns
    (peft/optimizers/lorafa.py, `LoraFAOptimizer.step`).
    """
    named: dict[str, torch.Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group.get("names", ()), group["params"], strict=False):
            if parameter.requires_grad:
                start = name.find("lora")
                named[name if start < 0 else name[:start] + "lora"] = parameter
    for key, state in optimizer.state.items():
        yield (named[key] if isinstance(key, str) else key), state


def warm_up(optimizer: torch.optim.Optimizer) -> None:
    """Build what a bitsandbytes optimizer computes from values, before values are fake.

    Its 8-bit states need a quantisation map, made by `.tolist()` and sorting
    (bitsandbytes/optim/optimizer.py, `fill_qmap`); 32-bit states need none.
    """
    if uses_maps(optimizer) and not optimizer.name2qmap:
        optimizer.fill_qmap()


def maps(optimizer: torch.optim.Optimizer, *, cuda: bool) -> Iterator[torch.Tensor]:
    """The quantisation maps in a device's memory: both are made on the host, and those that the
    states need are moved to a CUDA device, one state's only the signed one
    (bitsandbytes/optim/optimizer.py, `Optimizer1State.init_state`)."""
    if uses_maps(optimizer):
        from bitsandbytes.optim.optimizer import Optimizer1State

        signed_only = cuda and isinstance(optimizer, Optimizer1State)
        for name, tensor in optimizer.name2qmap.items():
            if name == "dynamic" or not signed_only:
                yield tensor


def uses_maps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is a bitsandbytes optimizer with 8-bit states."""
    return getattr(getattr(optimizer, "args", None), "optim_bits", None) == 8
