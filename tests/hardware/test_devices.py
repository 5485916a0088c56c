"""The table of GPUs: each entry against itself, its neighbours and the physics of such cards."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest

from profiler.errors import UsageError
from profiler.hardware import devices
from profiler.hardware.devices import Device

MIB, GIB = 1 << 20, 1 << 30

#: fp32 lanes of an SM by compute capability: CUDA C++ Programming Guide, table of arithmetic
#: throughput ("32-bit floating-point add, multiply, multiply-add", results per clock and SM).
LANES = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 9): 128, (9, 0): 128, (10, 0): 128}
LANES[(12, 0)] = 128

every_device = pytest.mark.parametrize("gpu", devices.load().values(), ids=devices.names())


def boost_clock(gpu: Device) -> float:
    """The clock in Hz at which the card's SMs reach its fp32 rate."""
    return gpu.float32_flops / (gpu.sm_count * LANES[gpu.compute_capability] * 2)


@every_device
def test_memory_is_what_the_card_is_sold_with_less_a_reserve(gpu: Device) -> None:
    assert 0.9 * gpu.memory_gb * GIB < gpu.memory_bytes < gpu.memory_gb * GIB
    assert gpu.memory_source.startswith("CUDA total: ")


@every_device
def test_memory_is_read_in_15_to_85_milliseconds(gpu: Device) -> None:
    assert 0.015 < gpu.memory_bytes / gpu.memory_bandwidth < 0.085


@every_device
def test_the_fp32_rate_is_that_of_the_sms_at_a_boost_clock(gpu: Device) -> None:
    assert 1.3e9 < boost_clock(gpu) < 2.7e9


@every_device
def test_tensor_cores_do_a_power_of_two_each_clock(gpu: Device) -> None:
    """A figure with sparsity, or with the wrong accumulator, is a factor of two off its class."""
    each_clock = gpu.float16_flops / (gpu.sm_count * boost_clock(gpu))
    nearest = 2 ** round(math.log2(each_clock))
    assert each_clock == pytest.approx(nearest, rel=0.1)
    generation = {7: 1024, 8: 2048, 9: 4096, 10: 8192}.get(gpu.compute_capability[0], 512)
    if gpu.compute_capability[0] == 8 and gpu.compute_capability[1] > 0:
        geforce = "GeForce" in gpu.name or gpu.key == "a10g"
        generation = 512 if geforce else 1024
    assert nearest == generation


@every_device
def test_rates_of_the_types_stand_in_the_ratios_of_their_width(gpu: Device) -> None:
    assert gpu.float32_flops <= gpu.float16_flops
    if gpu.compute_capability >= (8, 0):
        assert gpu.bfloat16_flops == gpu.float16_flops
        assert gpu.tf32_flops == pytest.approx(gpu.float16_flops / 2, rel=0.02)
    else:
        assert gpu.bfloat16_flops is gpu.tf32_flops is None
    if gpu.compute_capability == (7, 0):
        assert gpu.int8_flops is None
    else:
        assert gpu.int8_flops is not None
        assert min(abs(gpu.int8_flops / gpu.float16_flops - ratio) for ratio in (2, 4)) < 0.05


@every_device
def test_cache_power_and_context_are_in_proportion_to_the_sms(gpu: Device) -> None:
    assert 64 * 1024 < gpu.l2_bytes / gpu.sm_count < 1 * MIB
    assert 1 < gpu.power_limit / gpu.sm_count < 7
    assert 3 * MIB < gpu.cuda_context_bytes / gpu.sm_count < 6 * MIB
    assert gpu.usable_bytes == gpu.memory_bytes - gpu.cuda_context_bytes


@every_device
def test_every_figure_has_its_source(gpu: Device) -> None:
    assert gpu.cuda_context_basis in ("measured", "reported", "estimated")
    assert gpu.cuda_context_source == gpu.cuda_context_source.strip() != ""
    assert gpu.sources
    for source in gpu.sources:
        assert re.fullmatch(r"\S.*, https://\S+", source)


@every_device
def test_names_are_fit_for_a_command_line(gpu: Device) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", gpu.key)
    assert gpu.name.startswith("NVIDIA ")
    assert devices.device(gpu.key) is gpu


def test_estimated_contexts_follow_the_known_ones() -> None:
    """The rule the entries give, 4 MiB per SM, is the known cards' mean."""
    per_sm: dict[bool, list[float]] = {True: [], False: []}
    for gpu in devices.load().values():
        by_rule = gpu.cuda_context_source.startswith("4 MiB per SM")
        assert by_rule <= (gpu.cuda_context_basis == "estimated")
        per_sm[by_rule].append(gpu.cuda_context_bytes / gpu.sm_count)
    assert set(per_sm[True]) == {4 * MIB}
    assert sum(per_sm[False]) / len(per_sm[False]) == pytest.approx(4 * MIB, rel=0.1)


def same_chip(one: Device, other: Device) -> bool:
    return (one.compute_capability, one.sm_count, one.float16_flops, one.float32_flops) == (
        other.compute_capability,
        other.sm_count,
        other.float16_flops,
        other.float32_flops,
    )


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("v100-16gb", "v100-32gb"), ("a100-40gb", "a100-80gb"), ("h100", "h200")],
)
def test_a_chip_sold_with_more_memory_computes_the_same(smaller: str, larger: str) -> None:
    small, large = devices.device(smaller), devices.device(larger)
    assert same_chip(small, large)
    assert small.memory_bytes < large.memory_bytes
    assert small.memory_bandwidth <= large.memory_bandwidth


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("rtx-3060", "rtx-3090"),
        ("rtx-4070", "rtx-4080"),
        ("rtx-4080", "rtx-4090"),
        ("rtx-4090", "rtx-5090"),
        ("l4", "l40s"),
        ("h100-pcie", "h100"),
        ("h200", "b200"),
    ],
)
def test_the_stronger_card_is_stronger_in_everything(weaker: str, stronger: str) -> None:
    weak, strong = devices.device(weaker), devices.device(stronger)
    assert weak.sm_count < strong.sm_count
    assert weak.memory_bandwidth < strong.memory_bandwidth
    assert weak.float32_flops < strong.float32_flops
    assert weak.float16_flops < strong.float16_flops
    assert weak.power_limit < strong.power_limit


def test_rates_by_dtype() -> None:
    ampere, turing = devices.device("a100-80gb"), devices.device("t4")
    assert ampere.peak_flops("bfloat16") == ampere.bfloat16_flops
    assert ampere.peak_flops("float32") == ampere.float32_flops
    assert ampere.peak_flops("float32", tf32=True) == ampere.tf32_flops
    assert turing.peak_flops("bfloat16") == turing.float32_flops
    assert turing.peak_flops("float32", tf32=True) == turing.float32_flops
    with pytest.raises(UsageError, match="unknown dtype 'float64'"):
        ampere.peak_flops("float64")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("RTX 4090", "rtx-4090"), ("a100", "a100-80gb"), ("h100-sxm", "h100"), ("v100", "v100-16gb")],
)
def test_an_unknown_name_is_answered_with_its_neighbours(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        devices.device(typed)
    assert str(caught.value).startswith(f"unknown device {typed!r}; did you mean ")
    assert meant in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_loaded_table_is_the_callers_own() -> None:
    table = devices.load()
    assert tuple(table) == devices.names()
    table.clear()
    assert devices.load()


def test_reading_the_table_does_not_import_torch() -> None:
    code = "import sys, profiler.hardware.devices as d; d.load(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
