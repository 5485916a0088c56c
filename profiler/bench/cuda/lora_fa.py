"""LoRA-FA's step on a CUDA device: peft asks the machine, not the tensors, how it autocasts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def autocasting() -> Iterator[None]:
    """Let the step multiply B's gradient in bfloat16 (peft/optimizers/lorafa.py).

    On a CUDA device it always does: torch counts emulated bfloat16 as supported
    (torch/cuda/__init__.py, `is_bf16_supported`). The device to autocast is that of the fake
    tensors, whatever this machine has.
    """
    try:
        module: Any = importlib.import_module("peft.optimizers.lorafa")
    except ImportError:  # peft before 0.16 has no LoRA-FA
        yield
        return
    before = module.infer_device, module.is_bf16_available
    module.infer_device, module.is_bf16_available = (lambda: "cpu"), (lambda: True)
    try:
        yield
    finally:
        module.infer_device, module.is_bf16_available = before
