"""A step's time: its parts, and what bounds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis import history_time, step_time
from profiler.hardware import devices
from profiler.lengths import Shape
from profiler.record import Time
from profiler.trace import PHASES, Op

L40S = devices.device("l40s")

OPS = st.lists(
    st.builds(
        Op,
        name=st.sampled_from(("aten.mm", "aten.mul", "aten._flash_attention_forward")),
        phase=st.sampled_from(PHASES),
        module=st.sampled_from(("", "model.layers.0", "lm_head")),
        step=st.just(1),
        flops=st.integers(0, 10**12),
        nbytes=st.integers(0, 10**9),
        dtype=st.sampled_from(("bfloat16", "float32")),
        recompute=st.booleans(),
        kernels=st.integers(0, 3),
        views=st.integers(0, 9),
        waits=st.booleans(),
    ),
    max_size=20,
)


def check(time: Time) -> None:
    """All parts sum to the step."""
    kernels = sum(kernel.seconds for kernel in time.kernels)
    assert sum(time.phases.values()) == pytest.approx(time.step)
    assert sum(time.bound.values()) == pytest.approx(time.step)
    assert kernels + sum(time.outside_kernels.values()) == pytest.approx(time.step)
    modules = sum(seconds for phases in time.modules.values() for seconds in phases.values())
    assert modules == pytest.approx(kernels)


@given(OPS)
def test_the_parts_sum_to_the_step(ops: list[Op]) -> None:
    time = step_time.predict_ops(ops, L40S, 100)
    check(time)
    assert sum(step_time.spans(ops, L40S)) == pytest.approx(time.step if ops else 0.0)
    assert sum(kernel.flops for kernel in time.kernels) == sum(op.flops for op in ops if op.kernels)


def step(tokens: int) -> list[Op]:
    """Some layers of products and what is between them, on so many tokens."""
    width = 4096
    work = 2 * tokens * width * width
    moved = 2 * (2 * tokens * width + width * width)
    product = Op(
        "aten.mm", "forward", "", 1, work, moved, "bfloat16", False,
        product=(1, tokens, width, width),
    )  # fmt: skip
    between = Op("aten.mul", "forward", "", 1, 0, 6 * tokens * width, "bfloat16", False, views=2)
    layer = [product, between]
    return [replace(op, phase=phase) for phase in ("forward", "backward") for op in layer * 8]


def test_a_small_step_is_bound_by_launches_and_a_large_one_by_compute() -> None:
    small = step_time.predict_ops(step(1), L40S, 1)
    large = step_time.predict_ops(step(1 << 16), L40S, 1 << 16)
    assert max(small.bound, key=lambda name: small.bound[name]) == "launch"
    assert max(large.bound, key=lambda name: large.bound[name]) == "compute"
    assert large.step > 10 * small.step
    assert step_time.predict_ops(step(2), L40S, 2).step == pytest.approx(small.step, rel=0.05)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=20))
def test_a_runs_mean_is_between_its_shortest_and_its_longest_step(lengths: list[int]) -> None:
    shapes = [Shape(4, 100 * length, True) for length in lengths]
    distinct = sorted(set(lengths))
    ends = {distinct[0], distinct[-1]}
    ops = [[(op, 1) for op in step(100 * length)] for length in distinct]
    time = history_time.predict(
        ops,
        [length in ends for length in distinct],
        [distinct.index(length) for length in lengths],
        shapes,
        L40S,
        sum(400 * length for length in lengths),
    )
    check(time)
    ends_seconds = [step_time.predict_ops(step(100 * one), L40S, 1).step for one in ends]
    assert 0.999 * min(ends_seconds) <= time.step <= 1.001 * max(ends_seconds)


def test_a_record_says_where_the_model_was_held_to_published_runs() -> None:
    assert "30 published runs on this card" in step_time.approximation(L40S)
    assert "other cards" in step_time.approximation(devices.device("rtx-4090"))
