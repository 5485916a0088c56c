"""What each optimizer keeps and where, simulated: bytes by formula, on this CPU and on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import peft.optimizers
import pytest
import torch
from invariants import check_invariants
from tiny import write

from profiler.execute import run
from profiler.record import Record
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import optimizers
from profiler.subject.subject import build

HAS_LORA_FA = hasattr(peft.optimizers, "create_lorafa_optimizer")
needs_lora_fa = pytest.mark.skipif(not HAS_LORA_FA, reason="peft before 0.16")

LORA_ONLY = ("lora-fa", "lora-plus")

#: A step count kept as a float32 tensor of one number, as torch's optimizers do.
STEP = 4

#: bitsandbytes' quantisation maps have 256 float32 numbers; a CPU holds the signed and the unsigned
#: one, a GPU those that the states need.
MAP = 4 * 256


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def simulated(**fields: object) -> Record:
    record = run(RunSpec(**{"seq_len": 24, "method": "lora:r=64", **fields}))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    return record


def like(count: int, step: int = 0) -> Callable[[torch.Tensor], int]:
    """States of the parameter's own dtype, as torch's and peft's optimizers keep them."""
    return lambda parameter: count * parameter.numel() * parameter.element_size() + step


def float32(count: int) -> Callable[[torch.Tensor], int]:
    """States in float32 whatever the parameter is, as bitsandbytes' 32-bit optimizers keep them."""
    return lambda parameter: 4 * count * parameter.numel()


def adafactor(parameter: torch.Tensor) -> int:
    """Row and column means of the squared gradient, and the weight's root mean square; float32."""
    shape = parameter.shape
    if len(shape) < 2:
        return 4 * shape.numel() + 4
    return 4 * (shape[:-1].numel() + (shape[:-2] + shape[-1:]).numel()) + 4


def blockwise(count: int) -> Callable[[torch.Tensor], int]:
    """A byte for each number and a float32 for each 256, from 4096 numbers on."""

    def state(parameter: torch.Tensor) -> int:
        numel = parameter.numel()
        return count * (numel + 4 * math.ceil(numel / 256) if numel >= 4096 else 4 * numel)

    return state


#: Bytes of state of one trained parameter, and of what is there once.
KEPT: dict[str, tuple[Callable[[torch.Tensor], int], int]] = {
    "adafactor": (adafactor, 0),
    "adamw": (like(2, STEP), 0),
    "adamw-fused": (like(2, STEP), 0),
    "adamw-single": (like(2, STEP), 0),
    "adamw-8bit": (blockwise(2), 2 * MAP),
    "paged-adamw-8bit": (blockwise(2), 2 * MAP),
    "paged-adamw-32bit": (float32(2), 0),
    "lion": (float32(1), 0),
    "lion-8bit": (blockwise(1), 2 * MAP),
    "paged-lion-8bit": (blockwise(1), 2 * MAP),
    "paged-lion-32bit": (float32(1), 0),
    "lora-fa": (like(2), 0),
    "lora-plus": (like(2, STEP), 0),
    "sgd": (like(0), 0),
}


@pytest.mark.parametrize("name", optimizers.names())
def test_state_has_its_bytes_by_formula(models: dict[str, str], name: str) -> None:
    """Vectors, small matrices and large ones, module by module."""
    if name == "lora-fa" and not HAS_LORA_FA:
        pytest.skip("peft before 0.16")
    method = "lora:r=64" if name in LORA_ONLY else "full"
    fields = {"model": models["llama"], "method": method, "optimizer": name, "seq_len": 128}
    record = simulated(**fields, device="sim:cpu")
    subject = build(resolve(RunSpec(**fields)))  # type: ignore[arg-type]
    one, once = KEPT[name]
    expected = {
        path.rpartition(".")[0]: 0
        for path, parameter in subject.model.named_parameters()
        if parameter.requires_grad
    }
    for path, parameter in subject.model.named_parameters():
        if parameter.requires_grad:
            expected[path.rpartition(".")[0]] += one(parameter)
    expected[""] = expected.get("", 0) + once
    held = {path: row["optimizer_state"] for path, row in record.memory.modules.items()}
    for path in held.keys() | expected.keys():
        assert held.get(path, 0) == expected.get(path, 0), path
    assert record.memory.at_peak["optimizer_state"] == sum(expected.values())


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_sums_up_on_a_gpu(models: dict[str, str], name: str) -> None:
    if name == "lora-fa" and not HAS_LORA_FA:
        pytest.skip("peft before 0.16")
    record = simulated(model=models["llama"], optimizer=name, device="t4", grad_accumulation=2)
    check_invariants(record)
    held = record.memory.at_peak["optimizer_state"]
    assert held == sum(row["optimizer_state"] for row in record.memory.modules.values())
    assert (held > 0) == (name != "sgd")


def test_lion_needs_no_unsigned_map_on_a_gpu(models: dict[str, str]) -> None:
    """Of the 8-bit states on a GPU, Lion's is half of Adam's to the byte: one map, one state."""
    lion, adamw = (
        simulated(model=models["llama"], optimizer=name, device="a100-80gb").memory.at_peak
        for name in ("lion-8bit", "adamw-8bit")
    )
    assert 2 * lion["optimizer_state"] == adamw["optimizer_state"]


def test_lora_plus_takes_foreach_on_a_gpu(models: dict[str, str]) -> None:
    record = simulated(model=models["llama"], optimizer="lora-plus", device="a100-80gb")
    assert record.time is not None
    ops = {kernel.op for kernel in record.time.kernels if kernel.phase == "optimizer"}
    assert any("_foreach_sqrt" in op for op in ops)


@needs_lora_fa
def test_lora_fa_saves_what_a_would_need(models: dict[str, str]) -> None:
    fields: dict[str, object] = {
        "model": models["llama"],
        "device": "a100-80gb",
        "seq_len": 256,
        "batch_size": 4,
    }
    plain, frozen = (simulated(**fields, method=method) for method in ("lora", "lora-fa"))
    assert plain.params is not None
    assert frozen.params is not None
    assert frozen.params.total == plain.params.total
    assert frozen.params.trainable < plain.params.trainable
    # A frozen A needs no input: the point of the method.
    assert frozen.memory.at_peak["activations"] < plain.memory.at_peak["activations"]
    assert frozen.memory.at_peak["adapter_parameters"] == plain.memory.at_peak["adapter_parameters"]
    assert any("LoRA-FA" in line for line in frozen.approximations)
    assert not any("LoRA-FA" in line for line in plain.approximations)


def test_what_is_not_counted_on_a_cpu_is_named(models: dict[str, str]) -> None:
    """bitsandbytes' CPU update copies; torch's is seen whole."""
    fields: dict[str, object] = {"model": models["llama"], "device": "sim:cpu"}
    assert any(
        "bitsandbytes" in line for line in simulated(**fields, optimizer="lion").approximations
    )
    assert not simulated(**fields, optimizer="adamw").approximations


@needs_lora_fa
def test_a_simulated_gpu_does_not_depend_on_this_machines(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """peft asks for the machine's accelerator in the middle of the step."""
    from peft.optimizers import lorafa

    fields: dict[str, object] = {"model": models["opt"], "method": "lora-fa", "device": "h100"}
    here = simulated(**fields)
    monkeypatch.setattr(lorafa, "infer_device", lambda: "cuda")
    monkeypatch.setattr(lorafa, "is_bf16_available", lambda: False)
    assert simulated(**fields) == here
