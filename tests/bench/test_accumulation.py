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


def really_allocated(work: Callable[[], object]) -> int:
    """Bytes that the C++ allocator gave meanwhile."""
    with profile(profile_memory=True) as watched:
        work()
    return sum(
        event.self_cpu_memory_usage
        for event in watched.events()
        if event.name == "[memory]" and event.self_cpu_memory_usage > 0
    ) or sum(max(event.self_cpu_memory_usage, 0) for event in watched.events())


def fresh_tracker() -> StorageTracker:
    trace = Trace(cuda=False, source="measured")
    return StorageTracker(trace, ModulePaths(torch.nn.Identity()), Rules(), Shadows())


def allocated(trace: Trace, start: int) -> int:
    return sum(trace.blocks[event - 1].nbytes for event in trace.events[start:] if event > 0)


@pytest.mark.parametrize("function", [meets_twice, residual, shared, tied, by_hand])
def test_allocations_are_those_without_a_tracker(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """torch.profiler sees the C++ allocator and changes nothing; the tracker must count as many
    bytes allocated in the backward."""
    leaf = torch.rand(256, 1024, requires_grad=True)
    loss = function(leaf * 2)
    real = really_allocated(loss.backward)
    del loss
    leaf.grad = None

    tracker = fresh_tracker()
    with tracker:
        tracker.phase("forward")
        loss = function(leaf * 2)
        tracker.phase("backward")
        start = len(tracker.trace.events)
        loss.backward()
    assert allocated(tracker.trace, start) == pytest.approx(real, rel=0.001)


def test_so_they_are_under_inference_mode() -> None:
    """Where ops made of others arrive whole: a cast copies, a dropout in evaluation does not."""
    x, weight = torch.rand(256, 1024), torch.rand(512, 1024, dtype=torch.bfloat16)

    def evaluate() -> torch.Tensor:
        with torch.inference_mode():
            product = torch.nn.functional.linear(x.to(torch.bfloat16), weight)
            kept = torch.nn.functional.dropout(product, 0.1, training=False)
            return kept.reshape(512, 256).float().mT.contiguous()

    real = really_allocated(evaluate)
    assert real > 2 * x.numel()
    tracker = fresh_tracker()
    with tracker:
        tracker.phase("forward")
        evaluate()
    assert allocated(tracker.trace, 0) == pytest.approx(real, rel=0.01)  # oneDNN takes 14 KB
    assert not {"aten.to", "aten.linear", "aten.dropout"} & {op.name for op in tracker.trace.ops}
