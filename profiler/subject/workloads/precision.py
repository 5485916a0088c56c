"""Mixed precision of a step: autocast around the forward, and what comes with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from profiler.spec import RunSpec
from profiler.subject.stacks import Stack

if TYPE_CHECKING:
    import torch


class Precision:
    """How a stack runs a forward and an update under `RunSpec.autocast`.

    The forward alone is cast, and the model's loss in it; a backward computes in the types that the
    forward chose. Weights that were cast are kept until the forward returns
    (`torch.autocast(cache_enabled=True)`).
    """

    def __init__(self, spec: RunSpec, stack: Stack, device: str) -> None:
        """`device` is the type of the tensors' device: a simulated GPU's are on the CPU."""
        import torch

        assert spec.autocast is not None
        self._context: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._converts = False
        self.scaler: Any = None
        if spec.autocast == "none":
            return
        dtype = getattr(torch, spec.autocast)
        self._context = partial(torch.autocast, device, dtype=dtype)
        self._converts = stack.converts_outputs and dtype != torch.float32
        if stack.scales_loss and dtype == torch.float16:
            self.scaler = torch.amp.GradScaler(device)

    def forward(self, call: Callable[[], Any]) -> Any:
        """What the model returns, its 16-bit outputs copied to float32 if the stack does so.

        The copies are made outside autocast, while the originals are still there
        (`ConvertOutputsToFp32`, accelerate/utils/operations.py).
        """
        if not self._converts:
            return self._cast(call)
        from accelerate.utils import convert_to_fp32

        return convert_to_fp32(self._cast(call))

    def _cast(self, call: Callable[[], Any]) -> Any:
        with self._context():
            return call()

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss that the backward starts from."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the loss's scale, before they are clipped."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, left out by the scaler where a gradient is not finite."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
