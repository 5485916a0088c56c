"""What a machine reaches: the figures that the cost model (`profiler.analysis.cost_model`) reads.

A GPU that is only known by its datasheet gets them from `hardware.toml` and the efficiencies of
`profiler.hardware.efficiency`, which are the same for all cards; a machine that was calibrated has
its own, measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """Seconds of the host for what it does one after another, whatever the device does."""

    forward_op: float
    """An op that is dispatched from Python in a forward."""
    backward_op: float
    """An op that autograd's engine dispatches."""
    optimizer_op: float
    """An op of an optimizer, or of what a method does after a step."""
    view: float
    """An op that makes a view, or memory without content: no kernel."""
    value: float
    """A value that the host has already is read (`.item()`)."""
    module: float
    """A module's call: its hooks and its own Python."""
    item: float
    """One tensor of a list that an op takes (`_foreach_mul_`)."""
    launch: float
    """Each further kernel of an op."""
    step: float = 0.0
    """What a loop does around each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What a machine reaches at best, and what it costs to ask it.

    Attributes:
        matmul_flops: FLOP/s that a large product reaches, by dtype.
        multiprocessors: over how many a product's tiles are spread; 0 where it has none (a CPU).
        attention_flops: FLOP/s that a fused attention kernel reaches, by dtype.
        vector_flops: FLOP/s of what is no product (transforms, decompositions), by dtype.
        bandwidth: bytes/s from and to memory.
        cache_bytes: of the last cache, 0 for none; cache_bandwidth: bytes/s from and to it.
        kernel_seconds: no kernel takes less.
        queued: the host goes on while the device works (CUDA); otherwise op follows op.
    """

    name: str
    source: Literal["datasheet", "calibrated"]
    matmul_flops: Mapping[str, float]
    multiprocessors: int = 0
    attention_flops: Mapping[str, float] = field(default_factory=dict)
    vector_flops: Mapping[str, float] = field(default_factory=dict)
    bandwidth: float
    cache_bytes: int = 0
    cache_bandwidth: float = 0.0
    kernel_seconds: float = 0.0
    issue: Issue
    queued: bool
