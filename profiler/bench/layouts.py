"""How an op's operands lie in memory, as far as a CPU's kernels hang on it.

A kernel over two tensors of which one is transposed takes over ten times as long as over two that
lie alike, and products have code of their own for each way their factors lie.
"""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten

#: Ops whose result does not lie as their operands do: each operand counts by itself.
_BY_ITSELF = frozenset(
    packet.default for packet in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.clone)
)


def transposed(func: Any, args: tuple[Any, ...]) -> int:
    """Bit i is set if the i-th tensor among the arguments is not fastest along its last dimension.

    0 where all lie alike, unless the result does not. A dimension of size 1, and one that a value
    is repeated along, are none to go by.
    """
    mask = place = matrices = 0
    for argument in args:
        if isinstance(argument, torch.Tensor):
            if argument.dim() > 1 and argument.layout is torch.strided:
                matrices |= 1 << place
                if argument.shape[-1] != 1 and argument.stride(-1) > 1:
                    mask |= 1 << place
            place += 1
    return 0 if mask == matrices and func not in _BY_ITSELF else mask
