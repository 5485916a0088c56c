"""Trace: what one run yields, as plain data. Benches write it, `profiler.analysis` reads it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

#: Memory categories, in the order in which reports stack them.
CATEGORIES = (
    "base_parameters",
    "adapter_parameters",
    "buffers",
    "quantization_state",
    "gradients",
    "activation_gradients",
    "optimizer_state",
    "activations",
    "logits_and_loss",
    "kv_cache",
    "inputs",
    "workspaces",
    "temporaries",
)

#: Phases of a training step. `setup` stands before the first step.
PHASES = ("forward", "backward", "optimizer")


@dataclass(slots=True)
class Block:
    """One allocation: a storage, or what a kernel takes for itself.

    `nbytes` is what was asked for, before any allocator's rounding. `module` is the path of the
    module whose forward (or whose forward's backward) asked for it, "" for the model itself.
    `category` is one of `CATEGORIES` and holds for the block's whole life. `source` is the line
    that asked for it, as "transformers/models/llama/modeling_llama.py:68", in a backward the line
    of the forward; "" where none is known.
    """

    nbytes: int
    category: str
    op: str
    module: str
    shape: tuple[int, ...]
    dtype: str
    phase: str
    source: str = ""


@dataclass(slots=True)
class Op:
    """One dispatched operation that does work (views are left out).

    `nbytes` is what it reads and writes, `flops` counts a multiply-add as two, `recompute` says
    that it repeats forward work inside the backward (checkpointing), `event` how many events there
    were when it ended.

    What follows is what its time depends on (`profiler.analysis.cost_model`). `cached` are those of
    the bytes read that the device's last cache should still hold; `product` is (batch, m, n, k) of
    a product of (batch, m, k) by (batch, k, n), empty for what is none; `kernels` is how many a
    device launches; `items` how many tensors of lists it takes. `views` were made and `modules`
    were called since the op before. `waits` says that the host waits until the device is done,
    `causal` that a fused attention skips half of the square that `flops` counts. `transposed` has
    bit i set if another dimension than the last is the fastest of the i-th tensor among the
    arguments, 0 if all lie alike; it is noted for a CPU's ops alone (`profiler.bench.layouts`).
    """

    name: str
    phase: str
    module: str
    step: int
    flops: int
    nbytes: int
    dtype: str
    recompute: bool
    event: int = 0
    cached: int = 0
    product: tuple[int, ...] = ()
    kernels: int = 1
    items: int = 0
    views: int = 0
    modules: int = 0
    waits: bool = False
    causal: bool = False
    transposed: int = 0


@dataclass(slots=True)
class Mark:
    """From event number `event` on, the run is in `phase` of step `step` (0 is the warm-up).

    The last mark's phase is "end"; no event follows it.
    """

    event: int
    phase: str
    step: int


@dataclass(slots=True)
class Trace:
    """Allocations, frees and operations of one run, in order.

    `events` holds +(i + 1) for the allocation of `blocks[i]`, -(i + 1) for its free, and 0 where
    the allocator's cache is emptied. Blocks that are alive at the end have no free. `cuda` says
    that the bytes are a CUDA device's. `outside` maps what the allocator does not hold (paged
    optimizer state) to bytes.
    """

    cuda: bool
    source: str
    blocks: list[Block] = field(default_factory=list)
    events: array[int] = field(default_factory=lambda: array("q"))
    marks: list[Mark] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    outside: dict[str, int] = field(default_factory=dict)
    approximations: list[str] = field(default_factory=list)

    def steps(self) -> int:
        """Number of measured steps (the warm-up is step 0)."""
        return max((mark.step for mark in self.marks), default=0)
