"""What a method leaves on the host is no GPU's memory; each use of it is a copy there."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from profiler.bench.simulated import simulate
from profiler.hardware import devices
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.places import Moves, Places
from profiler.subject.subject import build
from profiler.trace import Trace


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("models")
    return tiny.write(folder)


def _trace(**fields: object) -> Trace:
    cell = resolve(RunSpec(batch_size=2, seq_len=16, **fields))  # type: ignore[arg-type]
    device = None if cell.spec.device == "sim:cpu" else devices.device(cell.spec.device)
    return simulate(build(cell), cell.spec, device)


def _permutations(trace: Trace) -> tuple[int, int]:
    """BOFT's registered permutation matrices, and copies of them that steps make."""
    blocks = [block for block in trace.blocks if block.shape == (1, 64, 64)]
    kept = [block for block in blocks if block.category == "buffers"]
    copies = [block for block in blocks if block.op == "aten._to_copy"]
    return len(kept), len(copies)


def test_a_buffer_that_peft_does_not_move(tiny_models: dict[str, str]) -> None:
    """`Trainer` moves the whole model, a plain loop loads it where it is; a CPU has one place."""
    kept, copies = {}, {}
    for stack, device in (("script", "l40s"), ("trainer", "l40s"), ("script", "sim:cpu")):
        trace = _trace(
            model=tiny_models["llama"],
            method="boft",
            weights_dtype="float32",  # so that no copy is a cast
            stack=stack,
            device=device,
        )
        kept[stack, device], copies[stack, device] = _permutations(trace)
    assert kept["script", "l40s"] == 0
    assert kept["trainer", "l40s"] == kept["script", "sim:cpu"] == 4  # two layers, two projections
    assert copies["script", "l40s"] == copies["trainer", "l40s"] + 2 * 4  # in each of two steps


def test_it_is_what_peft_does_to_real_tensors(tiny_models: dict[str, str]) -> None:
    """On real tensors: the library's own moves, to a second device that a CPU build has."""
    from peft.tuners.boft.layer import BOFTLayer

    cell = resolve(RunSpec(model=tiny_models["llama"], method="boft", device="sim:cpu"))
    model = build(cell, device="cpu").model
    layers = [module for module in model.modules() if isinstance(module, BOFTLayer)]
    for layer in layers:
        layer.get_base_layer().to("meta")  # the device, here
        layer._move_adapter_to_device_of_base_layer("default")
        assert layer.boft_R["default"].is_meta
        assert not layer.boft_P.is_meta
    assert layers


def test_indices_kept_as_attributes_stay(tiny_models: dict[str, str]) -> None:
    """Sending a module to a device takes its parameters and buffers along, and no attribute."""
    for stack in ("script", "trainer"):
        trace = _trace(model=tiny_models["llama"], method="fourierft", stack=stack, device="l40s")
        buffers = [block for block in trace.blocks if block.category == "buffers"]
        assert buffers
        assert all(block.shape != (2, 1000) for block in buffers)


def test_places_are_followed() -> None:
    places = Places()
    weight = torch.ones(3)  # never seen: it is on the device
    with Moves(places):
        made = torch.zeros(3)
        places.follow((), {}, made)
        summed = made + 1
        places.follow((made,), {}, summed)
        mixed = made + weight
        places.follow((made, weight), {}, mixed)
        assert places.on_host(made)
        assert places.on_host(summed)
        assert not places.on_host(mixed)
        assert places.on_host(made.view(3, 1))
        sent = summed.to(weight.device)
        named = torch.zeros(3, device=weight.device)
        kept = made.clone().to("cpu")
        beside = made.clone().to(weight)
    assert not places.on_host(sent)
    assert not places.on_host(named)
    assert not places.moved(kept)
    assert not places.on_host(beside)
