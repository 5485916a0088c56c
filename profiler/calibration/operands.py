"""Operands as a training step has them: the first in the cache, the others not.

What an op reads first is mostly what the op before it wrote. Its weights, what the forward saved
for the backward and the memory it writes to were last touched many megabytes ago. Timing the same
tensors over and over instead finds all of them in the cache, and elementwise kernels then seem two
to three times as fast as they are in a step.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

#: Last-level cache where the system does not say.
_USUAL_CACHE = 32 << 20
#: Tensors of one kind that are kept at most.
_MOST = 256
#: Tensors of a kind that a call takes at most: as many must be different ones.
_FEW = 4
#: Results below this are not kept: they do not fill a cache, and any memory does for them.
_SMALL = 64 << 10


class Operands:
    """Random tensors, taken in turn from a block of memory of `nbytes` for each dtype.

    It is larger than the last cache, so that a tensor taken again has left it.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._blocks: dict[torch.dtype, torch.Tensor] = {}

    def hot(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, that a call may use again and again."""
        return _random(math.prod(shape), dtype).view(shape)

    def cold(self, *shape: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """Tensors without end, each of which was used long ago.

        One that fills much of the memory has its own, since no cache holds it anyway: it is no
        other iterator's.
        """
        numel = math.prod(shape)
        if _FEW * numel * dtype.itemsize > self.nbytes:
            return itertools.repeat(self.hot(*shape, dtype=dtype))
        if dtype not in self._blocks:
            self._blocks[dtype] = _random(self.nbytes // dtype.itemsize, dtype)
        block = self._blocks[dtype]
        count = min(block.numel() // numel, _MOST)
        stride = block.numel() // count
        return itertools.cycle(
            [block[place * stride : place * stride + numel].view(shape) for place in range(count)]
        )

    def call(self, run: Callable[..., Any], *operands: Any) -> Callable[[], Any]:
        """A call of `run` on operands, iterators taken in turn, whose results are kept a while:
        so that the memory of the next is not that of the last."""
        fixed = [one if isinstance(one, Iterator) else itertools.repeat(one) for one in operands]
        turns: Iterator[tuple[Any, ...]] = zip(*fixed, strict=True)
        kept: deque[Any] = deque(maxlen=1)

        def call() -> None:
            kept.append(run(*next(turns)))

        call()
        size = _nbytes(kept[0])
        if size >= _SMALL and any(isinstance(one, Iterator) for one in operands):
            kept = deque(kept, maxlen=max(1, min(self.nbytes // size, _MOST)))
            for _ in range((kept.maxlen or 1) - 1):
                call()
        return call


def cache_bytes() -> int:
    """Size of the last-level cache in bytes."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * scale)
    return max(sizes, default=_USUAL_CACHE)


def _random(numel: int, dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.randn(numel).to(dtype)
    return torch.randint(0, 2, (numel,), dtype=dtype)


def _nbytes(result: Any) -> int:
    tensors = result if isinstance(result, (tuple, list)) else (result,)
    return sum(one.nbytes for one in tensors if isinstance(one, torch.Tensor))
