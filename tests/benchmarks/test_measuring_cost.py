"""What measuring costs: the timed step against a plain one, the profiled step against a bare one.

Paired in turn in one process; the median of all pairs' wall-time ratios, never an absolute time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from profiler.bench.measured import CpuTimer, prepare
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.workloads.train import TrainStep

#: So many that the median settles on a noisy machine.
PAIRS = 80
PROFILED_PAIRS = 16


def prepared(*, batch_size: int, seq_len: int) -> TrainStep:
    spec = RunSpec(
        model="opt-125m",
        method="lora",
        stack="script",
        batch_size=batch_size,
        seq_len=seq_len,
        device="cpu",
    )
    _, step = prepare(resolve(spec))
    for _ in range(3):
        plain(step)
    return step


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plain(step: TrainStep) -> None:
    """The step as a script has it, with nothing of ours in it."""
    step.optimizer.zero_grad()
    step.outputs = step.model(**step.batch)
    step.loss = step.outputs.loss
    step.loss.backward()
    torch.nn.utils.clip_grad_norm_(step.model.parameters(), step.max_norm)
    step.optimizer.step()


def timed(step: TrainStep) -> float:
    timer = CpuTimer()
    step(timer)
    timer.finish()
    return timer.time(tokens=1).step


def test_the_reported_time_is_a_plain_steps(benchmark: Any) -> None:
    step = prepared(batch_size=1, seq_len=32)
    ratios = []
    for pair in range(PAIRS):
        if pair % 2:
            ours, bare = timed(step), seconds(lambda: plain(step))
        else:
            bare, ours = seconds(lambda: plain(step)), timed(step)
        ratios.append(ours / bare)
    benchmark.extra_info["timed_over_plain"] = statistics.median(ratios)
    benchmark.pedantic(plain, args=(step,), rounds=1)
    assert statistics.median(ratios) == pytest.approx(1, abs=0.03)


def test_the_profiler_costs_at_most_a_tenth(benchmark: Any) -> None:
    step = prepared(batch_size=2, seq_len=128)
    ratios = []
    for pair in range(PROFILED_PAIRS):
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ):
            inside = seconds(lambda: plain(step))
        bare = seconds(lambda: plain(step))
        if pair:  # the first start of the profiler is slow
            ratios.append(inside / bare)
    benchmark.extra_info["profiled_over_bare"] = statistics.median(ratios)
    benchmark.pedantic(plain, args=(step,), rounds=1)
    assert statistics.median(ratios) <= 1.10
