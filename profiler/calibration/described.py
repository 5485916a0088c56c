"""A call as a trace describes it: so that what is timed and what is predicted go by one name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from profiler.bench.modules import ModulePaths
from profiler.bench.tracker import Rules, StorageTracker
from profiler.subject.shadows import Shadows
from profiler.trace import Op, Trace


def describe(call: Callable[[], Any]) -> Op:
    """The op that a call runs; the one that moves most, if it runs several."""
    trace = Trace(cuda=False, source="measured")
    shadows = Shadows()
    shadows.enabled = False
    with StorageTracker(trace, ModulePaths(torch.nn.Module()), Rules(), shadows):
        call()
    return max(trace.ops, key=lambda op: (op.flops, op.nbytes))
