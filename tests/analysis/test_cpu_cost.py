"""Times from a device profile: looked up, between sizes interpolated, and summed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import BANDWIDTH, FAULT, HOST, RATE, content, profile

from profiler.analysis.cpu_cost import CpuCost, Factors, Grid, along, curve_name, predict
from profiler.analysis.fresh_memory import MAPPED
from profiler.hardware.device_profile import DeviceProfile
from profiler.trace import PHASES, Block, Mark, Op, Trace

ADD = Op("aten.add", "forward", "model", 1, 0, 1 << 20, "float32", False)
MM = Op(
    *("aten.mm", "forward", "model.layers.0", 1, 2 * 64**3, 3 * 4 * 64**2, "float32", False),
    product=(1, 64, 64, 64),
)

sizes = st.floats(1, 1e12, allow_nan=False)
curves = st.lists(
    st.tuples(st.integers(1, 1 << 40), st.floats(1e-9, 1e3)), min_size=1, max_size=8
).map(
    lambda points: list(
        zip(
            sorted({float(size) for size, _ in points}),
            sorted(seconds for _, seconds in points),
            strict=False,
        )
    )
)


@given(curves, sizes, sizes)
def test_a_larger_kernel_takes_no_less_where_the_timed_ones_do_not(
    curve: list[tuple[float, float]], one: float, other: float
) -> None:
    less, more = sorted((one, other))
    assert along(curve, less) <= along(curve, more) * (1 + 1e-9)


@given(curves)
def test_a_timed_size_takes_what_it_took(curve: list[tuple[float, float]]) -> None:
    for size, seconds in curve:
        assert along(curve, size) == pytest.approx(seconds)


rates = st.fixed_dictionaries(
    {key: st.floats(1e6, 1e15) for key in itertools.product((4, 64, 1024), repeat=3)}
)
whole = st.integers(1, 1 << 20)


@given(rates, whole, whole, whole)
def test_a_product_runs_at_a_rate_between_those_around_it(
    found: dict[tuple[int, int, int], float], m: int, n: int, k: int
) -> None:
    rate = Grid(found).rate((m, n, k))
    assert min(found.values()) * (1 - 1e-9) <= rate <= max(found.values()) * (1 + 1e-9)


@given(rates)
def test_a_timed_product_runs_at_its_rate(found: dict[tuple[int, int, int], float]) -> None:
    grid = Grid(found)
    for sizes, rate in found.items():
        assert grid.rate(sizes) == pytest.approx(rate)


def test_a_product_that_was_not_timed_has_the_rate_of_the_next_smaller() -> None:
    grid = Grid({(4, 4, 4): 1e9, (4, 4, 64): 2e9, (4, 64, 4): 3e9, (64, 4, 4): 4e9})
    assert grid.rate((64, 4, 4)) == pytest.approx(4e9)
    assert grid.rate((64, 64, 64)) == pytest.approx(1e9)


def test_products_are_told_apart_by_how_their_factors_lie() -> None:
    data = content()
    for one in data["products"]:
        if one["layout"] == "tn":
            one["seconds"] *= 3
    cost = CpuCost(DeviceProfile.model_validate(data))
    plain = cost.op(MM)
    assert plain == pytest.approx(MM.flops / RATE)
    assert cost.op(replace(MM, transposed=0b10)) == pytest.approx(plain)
    assert cost.op(replace(MM, transposed=0b01)) == pytest.approx(3 * plain)
    # The first tensor of addmm is what is added.
    added = replace(MM, name="aten.addmm")
    assert cost.op(replace(added, transposed=0b001)) == pytest.approx(plain)
    assert cost.op(replace(added, transposed=0b010)) == pytest.approx(3 * plain)


def test_a_batch_takes_as_many_times_one() -> None:
    cost = CpuCost(profile())
    one = cost.product("bmm", "float32", Factors(1, 64, 64, 64))
    assert cost.product("bmm", "float32", Factors(16, 64, 64, 64)) == pytest.approx(16 * one)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int64", "bool", ""])
def test_what_was_not_timed_is_taken_for_elementwise(dtype: str) -> None:
    unknown = replace(ADD, name="aten.unheard_of", dtype=dtype)
    assert CpuCost(profile()).op(unknown) == pytest.approx(ADD.nbytes / BANDWIDTH)


def test_without_any_elementwise_kernel_bytes_move_as_in_a_copy() -> None:
    odd = profile(kernels=[{"op": "aten.sin", "dtype": "float32", "points": [(8, 1.0)]}])
    assert CpuCost(odd).op(ADD) == pytest.approx(ADD.nbytes / BANDWIDTH)


def test_operands_that_lie_differently_have_a_curve_of_their_own() -> None:
    assert curve_name(ADD) == "aten.add"
    askew = replace(ADD, transposed=0b10)
    slow = {"op": curve_name(askew), "dtype": "float32", "points": [(ADD.nbytes, 7.0)]}
    assert CpuCost(profile(kernels=[*content()["kernels"], slow])).op(askew) == pytest.approx(7.0)


def test_attention_goes_by_its_keys() -> None:
    name = "aten._scaled_dot_product_flash_attention_for_cpu"
    fast = {"op": name, "dtype": "float32", "flops": 1000, "intensity": 64.0, "seconds": 1e-7}
    slow = {**fast, "intensity": 8.0, "seconds": 1e-6}
    cost = CpuCost(profile(attention=[slow, fast]))
    assert cost.attention(name, "float32", 8000, 1000) == pytest.approx(8000 / 1e9)
    assert cost.attention(name, "float32", 64000, 1000) == pytest.approx(64000 / 1e10)
    between = cost.attention(name, "float32", 32000, 1000)
    assert 32000 / 1e10 < between < 32000 / 1e9


def trace(*ops: Op, blocks: tuple[int, ...] = ()) -> Trace:
    """Ops of a step, and blocks that are allocated in its forward and freed in its backward."""
    found = Trace(cuda=False, source="simulated", ops=list(ops))
    found.marks = [Mark(0, "forward", 1), Mark(len(blocks), "backward", 1)]
    found.marks += [Mark(2 * len(blocks), "optimizer", 1), Mark(2 * len(blocks), "end", 1)]
    for number, nbytes in enumerate(blocks):
        found.blocks.append(Block(nbytes, "activations", "aten.add", "", (), "float32", "forward"))
        found.events.append(number + 1)
    found.events.extend(-(number + 1) for number in reversed(range(len(blocks))))
    return found


def test_a_step_is_the_sum_of_its_phases_and_they_of_their_parts() -> None:
    ops = [ADD, MM, *(replace(MM, phase=phase) for phase in PHASES), replace(ADD, nbytes=0)]
    found = predict(trace(*ops, blocks=(MAPPED, 1000)), profile(), 128)
    assert found.source == "predicted"
    assert found.step == pytest.approx(sum(found.phases.values()))
    assert found.step == pytest.approx(sum(found.bound.values()))
    assert found.tokens_per_second == pytest.approx(128 / found.step)
    for phase, seconds in found.phases.items():
        kernels = sum(one.seconds for one in found.kernels if one.phase == phase)
        assert seconds == pytest.approx(kernels + found.outside_kernels[phase])
        modules = sum(one.get(phase, 0.0) for one in found.modules.values())
        assert modules == pytest.approx(kernels)


def test_a_step_costs_its_ops_its_host_and_its_fresh_memory() -> None:
    empty = replace(ADD, nbytes=0)  # no kernel, but the host makes it
    found = predict(trace(ADD, MM, empty, blocks=(MAPPED,)), profile(), 1)
    expected = ADD.nbytes / BANDWIDTH + MM.flops / RATE + 3 * HOST + MAPPED * FAULT
    assert found.step == pytest.approx(expected)
    assert {one.op for one in found.kernels} == {"aten.add", "aten.mm"}


def test_only_the_first_measured_step_counts() -> None:
    warm_up, next_one = replace(ADD, step=0), replace(ADD, step=2)
    assert predict(trace(warm_up, ADD, next_one), profile(), 1) == predict(trace(ADD), profile(), 1)


def test_an_optimizer_looks_at_each_tensor_of_a_list() -> None:
    one = replace(ADD, name="aten._fused_adamw_", phase="optimizer", items=1)
    many = replace(one, items=11)
    cost = CpuCost(profile())
    assert cost.host(many) - cost.host(one) == pytest.approx(10 * HOST)
