"""The cost model of one kernel: what holds on any card and for any shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.cost_model import cost, issue_seconds, tiled_flops
from profiler.hardware import devices
from profiler.hardware.efficiency import ceilings
from profiler.trace import Op

CARDS = st.sampled_from([ceilings(device) for device in devices.load().values()])
SIZES = st.integers(1, 1 << 14)
DTYPES = st.sampled_from(("bfloat16", "float16", "float32", "int8"))


def product(m: int, n: int, k: int, dtype: str = "bfloat16", batch: int = 1) -> Op:
    nbytes = 2 * batch * (m * n + m * k + k * n)
    shape = (batch, m, n, k)
    flops = 2 * batch * m * n * k
    return Op("aten.mm", "forward", "", 1, flops, nbytes, dtype, False, product=shape)


def copy(nbytes: int, cached: int = 0) -> Op:
    return Op("aten.mul", "forward", "", 1, 0, nbytes, "bfloat16", False, cached=cached)


@pytest.mark.parametrize("device", devices.load().values(), ids=lambda device: device.key)
def test_no_card_reaches_its_datasheet(device: devices.Device) -> None:
    machine = ceilings(device)
    for dtype, rate in machine.matmul_flops.items():
        assert 0 < rate < device.peak_flops(dtype)
    assert machine.bandwidth < device.memory_bandwidth
    assert machine.bandwidth < machine.cache_bandwidth


@given(CARDS, SIZES, SIZES, SIZES, DTYPES, st.integers(1, 64))
def test_a_product_takes_no_less_than_at_the_roof(
    machine: object, m: int, n: int, k: int, dtype: str, batch: int
) -> None:
    op = product(m, n, k, dtype, batch)
    rate = machine.matmul_flops.get(dtype) or machine.matmul_flops["float32"]  # type: ignore[attr-defined]
    seconds = cost(op, machine).seconds  # type: ignore[arg-type]
    assert seconds >= 0.999 * max(op.flops / rate, op.nbytes / machine.bandwidth)  # type: ignore[attr-defined]


@given(st.integers(1, 160), SIZES, SIZES, SIZES, st.sampled_from((1, 8)))
def test_tiles_cost_more_with_every_dimension(sms: int, m: int, n: int, k: int, batch: int) -> None:
    least = tiled_flops(sms, batch, m, n, k)
    assert least >= 2 * batch * m * n * k
    assert tiled_flops(sms, batch, m + 100, n, k) >= least
    assert tiled_flops(sms, batch, m, n + 100, k) >= least
    assert tiled_flops(sms, batch, m, n, k + 100) >= least
    assert tiled_flops(sms, batch, n, m, k) == least


@given(CARDS, st.integers(0, 1 << 34), st.integers(0, 1 << 30), st.floats(0, 1))
def test_bytes_cost_more_the_more_there_are_and_less_from_the_cache(
    machine: object, nbytes: int, more: int, share: float
) -> None:
    seconds = cost(copy(nbytes), machine).seconds  # type: ignore[arg-type]
    assert cost(copy(nbytes + more), machine).seconds >= seconds  # type: ignore[arg-type]
    assert cost(copy(nbytes, round(share * nbytes)), machine).seconds <= seconds  # type: ignore[arg-type]


def test_a_low_rank_product_is_bound_by_memory_and_a_large_one_by_compute() -> None:
    machine = ceilings(devices.device("l40s"))
    assert cost(product(840, 4096, 8), machine).bound != "compute"
    assert cost(product(4096, 4096, 4096), machine).bound == "compute"
    assert cost(product(8, 8, 8), machine).bound == "launch"
    # A wave of tiles more is paid in full.
    rate = {m: m / cost(product(m, 128 * 142, 4096), machine).seconds for m in (256, 257)}
    assert rate[257] < 0.9 * rate[256]


def test_a_product_in_fp32_runs_without_tensor_cores() -> None:
    machine = ceilings(devices.device("a100-80gb"))
    sixteen, thirty_two = (
        cost(product(4096, 4096, 4096, dtype), machine).seconds for dtype in ("bfloat16", "float32")
    )
    assert thirty_two > 10 * sixteen


def test_what_launches_nothing_takes_the_host_alone() -> None:
    machine = ceilings(devices.device("l40s"))
    view = replace(copy(1 << 20), kernels=0)
    assert cost(view, machine).seconds == 0
    assert 0 < issue_seconds(view, machine.issue) < issue_seconds(copy(1 << 20), machine.issue)
    many = replace(copy(1 << 20), kernels=5, items=100, views=3, modules=2)
    assert issue_seconds(many, machine.issue) > 5 * issue_seconds(copy(1), machine.issue)


def test_causal_attention_does_half() -> None:
    machine = ceilings(devices.device("a100-80gb"))
    name = "aten._flash_attention_forward"
    whole = Op(name, "forward", "", 1, 10**13, 10**6, "bfloat16", False)
    half = replace(whole, causal=True)
    assert cost(half, machine).seconds == pytest.approx(cost(whole, machine).seconds / 2)
