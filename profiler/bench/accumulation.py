"""The engine's own additions: where gradients of one tensor meet, torch adds in place if it can.

`can_accumulate_inplace` (torch/csrc/autograd/input_buffer.cpp) does so when nothing else refers to
the gradient that came first, but never while a dispatch mode is active. A tracker is one, so the
tracker decides as the engine would have, by the same counts.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ADD = torch.ops.aten.add.Tensor

#: (tensor references, Python references, storage references) of an argument of an op.
Counts = tuple[int, int, int]


def counts(args: tuple[Any, ...], index: int) -> Counts:
    """Reference counts of a tensor among an op's arguments, as seen from here."""
    return (
        args[index]._use_count(),
        sys.getrefcount(args[index]),
        torch._C._storage_Use_Count(args[index].untyped_storage()._cdata),
    )


def in_place(args: tuple[Any, ...], alone: Counts) -> bool:
    """Whether the engine would do this `aten.add.Tensor` of a backward in the first argument.

    Not if something else refers to it or to its storage, nor if the addition is not the engine's:
    a Python caller would hold references, too. No tensor is bound to a name here, since that would
    be a reference more.

    Args:
        alone: the counts of a gradient that only the engine holds (`held_by_engine_alone`).
    """
    if not (isinstance(args[0], torch.Tensor) and isinstance(args[1], torch.Tensor)):
        return False
    if args[0].shape != args[1].shape or args[0].dtype != args[1].dtype:
        return False
    return counts(args, 0) == alone and is_dense(args[0].shape, args[0].stride())


def is_dense(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor fills its memory without gaps or overlaps, in whatever order of dimensions
    (c10/core/TensorImpl.cpp, `compute_non_overlapping_and_dense`)."""
    expected = 1
    for stride, size in sorted(zip(strides, sizes, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


@functools.cache
def held_by_engine_alone() -> Counts:
    """The counts of a gradient that only the engine holds, found by a backward of known shape.

    Call it with no mode active. Raises `RuntimeError` if this torch's engine adds in another way.
    """
    seen: list[Counts] = []

    class Look(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            if func is ADD:
                seen.append(counts(args, 0))
            return func(*args, **(kwargs or {}))

    with torch.enable_grad():
        leaf = torch.ones(2, requires_grad=True)
        middle = leaf * 2
        loss = torch.stack([(middle * 3).sum(), (middle * 4).sum()]).sum()
        with Look():
            loss.backward()
    if len(seen) != 1:
        raise RuntimeError("this torch accumulates gradients in a way that is not known")
    return seen[0]
