"""A measured cell stands beside the simulation of its run on its machine, or beside none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.hardware import devices
from profiler.record import Record
from profiler.report.cells import arrange
from profiler.report.pairs import TOLERANCE, Difference, Pair, is_card, pair

RecordFactory = Callable[..., Record]


def pairs_of(*records: Record) -> list[Pair]:
    return pair(arrange(records))


def test_the_same_run_on_the_same_cpu_is_a_pair(cpu: RecordFactory) -> None:
    (found,) = pairs_of(cpu("cpu"), cpu("sim:cpu"))
    assert (found.measured.source, found.simulated.source) == ("measured", "simulated")
    assert (found.measured.device, found.simulated.device) == ("cpu", "sim:cpu")
    assert found.differing == ()


def test_every_measured_cell_finds_its_own(cpu: RecordFactory) -> None:
    methods = ("full", "qlora", "ia3")
    records = [cpu(device, method) for device in ("cpu", "sim:cpu") for method in methods]
    found = pairs_of(*records, cpu("cpu", "bitfit"))
    assert {(one.measured.name, one.simulated.name) for one in found} == {
        (name, name) for name in methods
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 2), ("seed", 1), ("optimizer", "sgd"), ("padded", True), ("steps", 2)],
)
def test_another_spec_is_another_run(cpu: RecordFactory, field: str, value: Any) -> None:
    other = cpu("sim:cpu")
    other.spec[field] = value
    assert pairs_of(cpu("cpu"), other) == []


def test_how_a_run_was_typed_does_not_matter(cpu: RecordFactory) -> None:
    measured, simulated = cpu("cpu"), cpu("sim:cpu")
    for record, name, label in ((measured, "here/opt", "lora:r=64"), (simulated, "opt", "lora64")):
        record.spec |= {"model": name, "model_config": {"hidden_size": 4096}}
        record.spec["method"]["label"] = label
    assert len(pairs_of(measured, simulated)) == 1


@pytest.mark.parametrize(("key", "value"), [("cpu", "another"), ("cpu_features", [])])
def test_another_cpu_is_another_machine(cpu: RecordFactory, key: str, value: Any) -> None:
    other = cpu("sim:cpu")
    other.environment[key] = value
    assert pairs_of(cpu("cpu"), other) == []


def test_a_card_does_not_stand_for_a_cpu_nor_the_reverse(
    cpu: RecordFactory, record: RecordFactory
) -> None:
    assert pairs_of(cpu("cpu"), record(device="l40s")) == []
    cuda = record(device="l40s", source="measured", fits=None)
    cuda.spec["device"] = "cuda"
    cuda.environment["device"] = "NVIDIA L40S"
    assert pairs_of(cuda, cpu("sim:cpu")) == []


def test_a_gpu_stands_beside_the_card_that_it_is(record: RecordFactory) -> None:
    cuda = record(device="l40s", source="measured", fits=None)
    cuda.spec["device"] = "cuda"
    cards = [record(device=name) for name in ("l40s", "a100-80gb", "rtx-4090")]
    for reported, name in (("NVIDIA L40S", "l40s"), ("NVIDIA A100-SXM4-80GB", "a100-80gb")):
        cuda.environment["device"] = reported
        (found,) = pairs_of(cuda, *cards)
        assert found.simulated.device == name
    for nothing in (None, "NVIDIA L4"):
        cuda.environment["device"] = nothing
        assert pairs_of(cuda, *cards) == []


def test_simulations_of_one_machine_are_no_pair(cpu: RecordFactory) -> None:
    assert pairs_of(cpu("sim:cpu"), cpu("sim:cpu", "full")) == []
    assert pairs_of(cpu("cpu")) == []


def test_the_nearest_environment_is_taken_and_the_difference_named(cpu: RecordFactory) -> None:
    old, new = cpu("sim:cpu", id="old"), cpu("sim:cpu", id="new")
    old.environment["peft"] = "0.13.2"
    for records in ([cpu("cpu"), old, new], [new, old, cpu("cpu")]):
        (found,) = pairs_of(*records)
        assert found.simulated.record.id.startswith("new")
    (found,) = pairs_of(cpu("cpu"), old)
    assert found.differing == ("peft 0.21.2 measured, 0.13.2 simulated",)


REPORTED = {
    "Tesla T4": "t4",
    "Tesla V100-SXM2-16GB": "v100-16gb",
    "Tesla V100-SXM2-32GB": "v100-32gb",
    "NVIDIA A10G": "a10g",
    "NVIDIA L4": "l4",
    "NVIDIA L40S": "l40s",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100 80GB PCIe": "a100-80gb-pcie",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA GeForce RTX 3090": "rtx-3090",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada",
}
OTHERS = (
    "",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 4070 Ti",
    "NVIDIA GeForce RTX 4080 SUPER",
    "NVIDIA H100 NVL",
    "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    "Tesla V100-PCIE-16GB",
    "Quadro RTX 6000",
)


@pytest.mark.parametrize("reported", [*REPORTED, *OTHERS])
def test_a_driver_s_name_is_one_card_or_none(reported: str) -> None:
    found = [name for name in devices.names() if is_card(reported, name)]
    assert found == ([REPORTED[reported]] if reported in REPORTED else [])


sizes = st.none() | st.integers(0, 2**45)


@given(sizes, sizes)
def test_a_verdict_follows_from_the_bytes(measured: int | None, simulated: int | None) -> None:
    found = Difference(measured, simulated)
    if measured is None or simulated is None:
        assert (found.nbytes, found.share, found.verdict) == (None, None, "unknown")
        return
    assert found.nbytes == simulated - measured
    assert (found.verdict == "equal") == (measured == simulated)
    apart = abs(simulated - measured) > TOLERANCE * measured
    assert (found.verdict == "apart") == apart
    assert (found.share is None) == (measured == 0 and simulated > 0)
