"""The tracker adds gradients where torch's engine would, which a dispatch mode keeps it from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.profiler import profile

from profiler.bench.modules import ModulePaths
from profiler.bench.tracker import Rules, StorageTracker
from profiler.subject.shadows import Shadows
from profiler.trace import Trace


def meets_twice(x: torch.Tensor) -> torch.Tensor:
    return (x * 3).sum() + (x * 4).sum() + (x * 5).sum()


def residual(x: torch.Tensor) -> torch.Tensor:
    y = x.sin() + x
    return (y.cos() + y).sum()


def shared(x: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    return ((y + y) * y).sum()


class Squared(torch.autograd.Function):
    """A backward in Python that adds: not the engine's addition."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        product = grad * x
        return product + product


def by_hand(x: torch.Tensor) -> torch.Tensor:
    return Squared.apply(x.sin()).sum()


def tied(x: torch.Tensor) -> torch.Tensor:
    """A weight used twice, as embedding and head: one of its gradients comes transposed."""
    picked = torch.nn.functional.embedding(torch.arange(256), x)
    return (picked @ x.T).sum()


@pytest.mark.parametrize("function", [meets_twice, residual, shared, tied, by_hand])
def test_allocations_are_those_without_a_tracker(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """torch.profiler sees the C++ allocator and changes nothing; the tracker must count as many
    bytes allocated in the backward."""
    leaf = torch.rand(256, 1024, requires_grad=True)

    loss = function(leaf * 2)
    with profile(profile_memory=True) as watched:
        loss.backward()
    del loss
    leaf.grad = None
    real = sum(
        event.self_cpu_memory_usage
        for event in watched.events()
        if event.name == "[memory]" and event.self_cpu_memory_usage > 0
    ) or sum(max(event.self_cpu_memory_usage, 0) for event in watched.events())

    trace = Trace(cuda=False, source="measured")
    module = torch.nn.Identity()
    tracker = StorageTracker(trace, ModulePaths(module), Rules(), Shadows())
    with tracker:
        tracker.phase("forward")
        loss = function(leaf * 2)
        tracker.phase("backward")
        start = len(trace.events)
        loss.backward()
        end = len(trace.events)
    tracked = sum(trace.blocks[event - 1].nbytes for event in trace.events[start:end] if event > 0)
    assert tracked == pytest.approx(real, rel=0.001)
