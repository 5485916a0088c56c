"""bitsandbytes' optimizers, built as `Trainer` builds them
(transformers/trainer_optimizer.py, `_get_bitsandbytes_optimizer`).

Which states are 8-bit (from 4096 numbers on) and which are paged is theirs to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from profiler.subject.optimizers.registry import LEARNING_RATE, register

if TYPE_CHECKING:
    import torch

#: `TrainingArguments.adam_beta1` and `adam_beta2`, which `Trainer` gives Lion, too.
_BETAS = (0.9, 0.999)


#: bitsandbytes/backends/cpu/ops.py; a CUDA kernel works in place.
_COPIES = "The copies in which bitsandbytes updates a parameter on a CPU are not counted."


def _register(name: str, kind: str, *, bits: int, paged: bool = False) -> None:
    @register(name, cpu_approximations=(_COPIES,))
    def build(model: Any, groups: Iterable[Any], cuda: bool) -> torch.optim.Optimizer:
        import bitsandbytes

        optimizer: torch.optim.Optimizer = getattr(bitsandbytes.optim, kind)(
            groups, lr=LEARNING_RATE, betas=_BETAS, optim_bits=bits, is_paged=paged
        )
        return optimizer


_register("adamw-8bit", "AdamW", bits=8)
_register("paged-adamw-8bit", "AdamW", bits=8, paged=True)
_register("paged-adamw-32bit", "AdamW", bits=32, paged=True)
_register("lion", "Lion", bits=32)
_register("lion-8bit", "Lion", bits=8)
_register("paged-lion-8bit", "Lion", bits=8, paged=True)
_register("paged-lion-32bit", "Lion", bits=32, paged=True)
