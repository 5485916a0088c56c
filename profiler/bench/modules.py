"""Which module is running: a stack of paths, kept by global forward hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules import module as torch_module


class ModulePaths:
    """The path of the running module of one model.

    Attributes:
        current: path of the innermost module of the model whose forward is running, "" outside.
        depth: how many of them are running.
        after_head: whether the output embedding has run since `restart` (what follows is the loss).
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._parameters = {  # a tied one at its first place
            id(parameter): name.rpartition(".")[0] for name, parameter in model.named_parameters()
        }
        get_head = getattr(model, "get_output_embeddings", None)
        self._head = get_head() if get_head is not None else None
        self._stack: list[str] = []
        self._entered = 0
        self.current = ""
        self.depth = 0
        self.after_head = False

    def restart(self) -> None:
        """A new forward begins."""
        self._stack.clear()
        self.current, self.depth, self.after_head = "", 0, False

    def of_parameter(self, parameter: torch.Tensor) -> str:
        """Path of the module that holds a parameter."""
        return self._parameters.get(id(parameter), "")

    def take_entered(self) -> int:
        """How many modules were called since this was last asked."""
        entered, self._entered = self._entered, 0
        return entered

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow forwards while the context lasts."""
        before = torch_module.register_module_forward_pre_hook(self._enter)
        # Early-stopped recomputation leaves modules by an exception: the hook must still run.
        after = torch_module.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()
            self.restart()

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        path = self._paths.get(id(module))
        if path is None:
            path = self.current
        self._stack.append(path)
        self.current = path
        self.depth += 1
        self._entered += 1
        if getattr(module, "computes_loss", False):  # a head that is part of the loss
            self.after_head = True

    def _leave(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()
        self.current = self._stack[-1] if self._stack else ""
        self.depth = len(self._stack)
        if module is self._head:
            self.after_head = True
