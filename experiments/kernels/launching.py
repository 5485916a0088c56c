"""How a kernel is started: its tile, and Triton's interpreter for tensors on the CPU."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from triton.runtime.interpreter import InterpretedFunction

from profiler.errors import UsageError

DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Tile:
    """What one block of threads computes: `m` x `n` numbers of the result, `k` at a time.

    Attributes:
        warps: warps of 32 threads in the block.
        stages: loads that are in flight at the same time (Triton's software pipelining).
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return f"{self.m} × {self.n} × {self.k}"

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Blocks that cover a result of that shape; rows vary fastest, so that the blocks which
        run at the same time share their part of the weight in the L2 cache."""
        return -(-rows // self.m), -(-columns // self.n)


def pick(tiles: tuple[Tile, ...], rows: int) -> Tile:
    """The lowest tile that holds all rows, or the last one."""
    return next((tile for tile in tiles if tile.m >= rows), tiles[-1])


def launch(kernel: Any, grid: tuple[int, int], tile: Tile, *args: Any, **constants: Any) -> None:
    """Run `kernel` on its tensors' device: compiled on CUDA, interpreted on a CPU.

    `kernel` is the function under its decorator, whatever TRITON_INTERPRET was at import.
    The interpreter multiplies the bits of bfloat16 as integers in `tl.dot`; it gets INTERPRETED,
    and then the kernels give `tl.dot` 32-bit numbers. The products are the same: a product of two
    16-bit floats is exact in 32 bits, and a GPU sums them in 32 bits.
    """
    device = next(arg.device for arg in args if isinstance(arg, torch.Tensor))
    if device.type == "cpu":
        _interpreted(kernel.fn)[grid](*args, **constants, INTERPRETED=True)
        return
    kernel[grid](
        *args, **constants, INTERPRETED=False, num_warps=tile.warps, num_stages=tile.stages
    )


def check(name: str, tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """A tensor as the kernels read it: that shape and dtype, contiguous.

    Raises:
        UsageError: it is not.
    """
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or not tensor.is_contiguous():
        raise UsageError(
            f"{name} must be a contiguous {dtype} tensor of shape {shape}, not a "
            f"{'' if tensor.is_contiguous() else 'strided '}{tensor.dtype} of {tuple(tensor.shape)}"
        )


def check_activations(x: torch.Tensor) -> None:
    """Activations as the kernels read them: two dimensions, 16-bit floats, contiguous.

    Raises:
        UsageError: they are not.
    """
    if x.dtype not in DTYPES or x.dim() != 2 or not x.is_contiguous():
        raise UsageError(
            "x must be a contiguous matrix of float16 or bfloat16, not "
            f"{x.dtype} of {tuple(x.shape)}; flatten its leading dimensions"
        )


@functools.cache
def _interpreted(function: Any) -> Any:
    return InterpretedFunction(function)
