"""FLOPs of one optimizer step, by phase. A multiply-add is two."""

from __future__ import annotations

from profiler.record import Flops
from profiler.trace import Trace


def analyse(trace: Trace) -> Flops:
    """Sums over the first measured step; what checkpointing computes again stands apart."""
    phases = {"forward": 0, "backward": 0, "recompute": 0, "optimizer": 0}
    for op in trace.ops:
        if op.step == 1:
            phases["recompute" if op.recompute else op.phase] += op.flops
    return Flops(total=sum(phases.values()), phases=phases)
