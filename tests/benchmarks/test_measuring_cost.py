"""What measuring costs: the timed step against a plain one, the profiled step against a bare one.

Paired in turn in one process; medians of the pairs' ratios, never an absolute time. A busy
neighbour disturbs wall time, so that the CPU time of the same pairs stands beside it: work that
measuring adds shows in both.
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

PAIRS = 16

#: A neighbour may disturb a whole round; what measuring itself costs is in every one.
ROUNDS = 4


@pytest.fixture(scope="module")
def step() -> TrainStep:
    spec = RunSpec(
        model="opt-125m", method="lora", stack="script", batch_size=2, seq_len=128, device="cpu"
    )
    _, step = prepare(resolve(spec))
    for _ in range(3):
        plain(step)
    return step


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def plain(step: TrainStep) -> None:
    """The step as a script has it, with nothing of ours in it."""
    step.optimizer.zero_grad()
    step.outputs = step.model(**step.batch)
    step.loss = step.outputs.loss
    step.loss.backward()
    torch.nn.utils.clip_grad_norm_(step.model.parameters(), step.max_norm)
    step.optimizer.step()


def timed(step: TrainStep, reported: list[float]) -> None:
    timer = CpuTimer()
    step(timer)
    timer.finish()
    reported.append(timer.time(tokens=1).step)


def timed_over_plain(step: TrainStep) -> dict[str, float]:
    reported: list[float] = []
    wall, cpu = [], []
    for pair in range(PAIRS):
        if pair % 2:
            _, ours = seconds(lambda: timed(step, reported))
            bare = seconds(lambda: plain(step))
        else:
            bare = seconds(lambda: plain(step))
            _, ours = seconds(lambda: timed(step, reported))
        wall.append(reported[-1] / bare[0])
        cpu.append(ours / bare[1])
    return {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}


def test_the_reported_time_is_a_plain_steps(benchmark: Any, step: TrainStep) -> None:
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        rounds.append(timed_over_plain(step))
        if min(abs(ratio - 1) for ratio in rounds[-1].values()) <= 0.03:
            break
    benchmark.extra_info["timed_over_plain"] = rounds
    benchmark.pedantic(plain, args=(step,), rounds=1)
    assert min(abs(ratio - 1) for ratio in rounds[-1].values()) <= 0.03, rounds


def test_the_profiler_costs_at_most_a_tenth(benchmark: Any, step: TrainStep) -> None:
    wall, cpu = [], []
    for pair in range(PAIRS):
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ):
            inside = seconds(lambda: plain(step))
        bare = seconds(lambda: plain(step))
        if pair:  # the first start of the profiler is slow
            wall.append(inside[0] / bare[0])
            cpu.append(inside[1] / bare[1])
    ratios = {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}
    benchmark.extra_info["profiled_over_bare"] = ratios
    benchmark.pedantic(plain, args=(step,), rounds=1)
    assert min(ratios.values()) <= 1.10, ratios
