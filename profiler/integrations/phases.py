"""Finds a training loop's phases without marks: by its backward and its optimizer step.

What runs before the first backward of a step, and each forward of the model, is `forward`;
`torch.autograd.backward` is `backward`; what follows until the next forward or the end of the step
is `optimizer` (clipping, the optimizer, `zero_grad`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class Listener:
    """What a loop does, as it does it. Every call may be left empty."""

    def phase(self, name: str) -> None:
        """The loop enters a phase."""

    def forward_begins(self, inputs: dict[str, Any]) -> None:
        """The model is called with these arguments, positional ones by their number."""

    def forward_done(self, outputs: Any) -> None:
        """The model's forward has returned."""

    def backward_done(self) -> None:
        """A backward has returned; gradients are in place."""

    def optimizer_done(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer has stepped; its state is in place."""


class Phases:
    """Tells a listener what a loop does, while the context lasts.

    Args:
        model: the module that the loop calls.
        listener: is told.
        optimizer: whose steps are told; None for any's.
        lazy: the optimizer's phase begins with the first op after the backward (`worked`), not with
            the backward's end, so that what dies in between belongs to the backward.

    Attributes:
        current: the phase that the loop is in.
        lazy: as given; it may be changed.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        listener: Listener,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        lazy: bool = False,
    ) -> None:
        self.current = ""
        self._model = model
        self._listener = listener
        self._optimizer = optimizer
        self.lazy = lazy
        self._pending = False
        self._depth = 0
        self._stack = ExitStack()

    def begin_step(self) -> None:
        """A step of the loop begins."""
        self._enter("forward")

    def worked(self) -> None:
        """An op runs."""
        if self._pending:
            self._enter("optimizer")

    def __enter__(self) -> Phases:
        with ExitStack() as stack:
            model = self._model
            for handle in (
                model.register_forward_pre_hook(self._forward_begins, with_kwargs=True),
                model.register_forward_hook(self._forward_done),
                register_optimizer_step_pre_hook(self._optimizer_begins),
                register_optimizer_step_post_hook(self._optimizer_done),
            ):
                stack.callback(handle.remove)
            for name in ("backward", "grad"):
                before = getattr(torch.autograd, name)
                setattr(torch.autograd, name, self._watched(before))
                stack.callback(setattr, torch.autograd, name, before)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _enter(self, name: str) -> None:
        self._pending = False
        self.current = name
        self._listener.phase(name)

    def _forward_begins(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if self._depth or not torch.is_grad_enabled():  # recomputed, or an evaluation
            return
        if self.current != "forward":
            self._enter("forward")
        inputs = {str(index): value for index, value in enumerate(args)}
        self._listener.forward_begins({**inputs, **kwargs})

    def _forward_done(self, module: Any, args: Any, outputs: Any) -> None:
        if not self._depth and torch.is_grad_enabled():
            self._listener.forward_done(outputs)

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._depth:  # a reentrant checkpoint's own
                return function(*args, **kwargs)
            if self.current != "backward":
                self._enter("backward")
            self._pending = False
            self._depth += 1
            try:
                result = function(*args, **kwargs)
            finally:
                self._depth -= 1
            self._listener.backward_done()
            if self.lazy:
                self._pending = True
            else:
                self._enter("optimizer")
            return result

        return watched

    def _optimizer_begins(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._mine(optimizer) and not self._depth and self.current != "optimizer":
            self._enter("optimizer")

    def _optimizer_done(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._mine(optimizer):
            self._listener.optimizer_done(optimizer)

    def _mine(self, optimizer: Any) -> bool:
        return self._optimizer is None or optimizer is self._optimizer


def unwrapped(optimizer: Any) -> Any:
    """The optimizer inside wrappers such as accelerate's."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def tokens(inputs: dict[str, Any]) -> int:
    """Positions of a forward's batch: of `input_ids`, `inputs_embeds`, or the first tensor of
    integers; 0 if there is none."""
    ids = inputs.get("input_ids")
    if isinstance(ids, torch.Tensor):
        return ids.numel()
    embeddings = inputs.get("inputs_embeds")
    if isinstance(embeddings, torch.Tensor) and embeddings.dim() > 1:
        return embeddings.shape[0] * embeddings.shape[1]
    for value in inputs.values():
        if isinstance(value, torch.Tensor) and value.dtype in (torch.int64, torch.int32):
            return value.numel()
    return 0
