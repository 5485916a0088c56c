"""The reader of `hardware.toml`, whose head says what each figure is and where it comes from."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from profiler.errors import UsageError, unknown

#: What `--device` takes for this machine: the step is really run.
MEASURED = ("cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU as its maker states it. Rates are nominal peaks; no program reaches all of them."""

    key: str
    """The name that `--device` takes."""
    name: str
    compute_capability: tuple[int, int]
    sm_count: int
    memory_gb: int
    """What the card is sold as having."""
    memory_bytes: int
    """The total that CUDA reports."""
    memory_source: str
    memory_bandwidth: float
    """Bytes/s."""
    float32_flops: float
    """FLOP/s without tensor cores."""
    float16_flops: float
    """FLOP/s of the tensor cores, dense, accumulating in fp32; so the next three, where None says
    that they do not know the type."""
    bfloat16_flops: float | None = None
    tf32_flops: float | None = None
    int8_flops: float | None = None
    l2_bytes: int
    power_limit: float
    """W."""
    cuda_context_bytes: int
    """Device memory a process takes besides the allocator's."""
    cuda_context_basis: Literal["measured", "reported", "estimated"]
    cuda_context_source: str
    sources: tuple[str, ...]

    @property
    def usable_bytes(self) -> int:
        """What the allocator can reserve when one process has the card to itself."""
        return self.memory_bytes - self.cuda_context_bytes

    def with_memory(self, nbytes: int) -> Device:
        """The card as a process sees it that may have `nbytes` of its memory.

        Raises:
            UsageError: the card has less, or a process's context alone takes as much.
        """
        if not self.cuda_context_bytes < nbytes <= self.memory_bytes:
            raise UsageError(
                f"{self.key} has {self.memory_bytes / 2**30:.2f} GiB, of which a process needs "
                f"{self.cuda_context_bytes / 2**30:.2f} for itself; {nbytes / 2**30:.2f} GiB is "
                "not between them"
            )
        return dataclasses.replace(self, memory_bytes=nbytes)

    def peak_flops(self, dtype: str, *, tf32: bool = False) -> float:
        """FLOP/s of matrix products in `dtype` ("float32", "bfloat16", "float16" or "int8").

        `tf32` says whether fp32 products may use tensor cores (`torch.backends.cuda.matmul`, off
        by default). A type that the tensor cores do not know runs at the fp32 rate.

        Raises:
            UsageError: another dtype.
        """
        rates = {
            "float32": self.tf32_flops if tf32 else None,
            "bfloat16": self.bfloat16_flops,
            "float16": self.float16_flops,
            "int8": self.int8_flops,
        }
        if dtype not in rates:
            raise unknown("dtype", dtype, rates)
        return rates[dtype] or self.float32_flops


@functools.cache
def _table() -> dict[str, Device]:
    text = Path(__file__).with_name("hardware.toml").read_text(encoding="utf-8")
    table = {}
    for key, entry in tomllib.loads(text).items():
        entry["compute_capability"] = tuple(entry["compute_capability"])
        entry["sources"] = tuple(entry["sources"])
        table[key] = Device(key=key, **entry)
    return table


def load() -> dict[str, Device]:
    """Every known GPU by its key, in the file's order."""
    return dict(_table())


def names() -> tuple[str, ...]:
    """The names that `device` takes."""
    return tuple(_table())


def device(name: str) -> Device:
    """The GPU of that name.

    Raises:
        UsageError: there is none; the message has the nearest names.
    """
    try:
        return _table()[name]
    except KeyError:
        raise unknown("device", name, _table()) from None
