"""Delta-LoRA: the weights move by the change of the product, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write

from profiler.bench.measured import prepare
from profiler.errors import UsageError
from profiler.execute import run
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.methods.peft_method import of_type
from profiler.subject.workloads.train import TrainStep, Unwatched


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def step_of(model: str, options: str = "", **fields: Any) -> TrainStep:
    spec = RunSpec(
        **{
            "model": model,
            "method": f"delta-lora:{options}".rstrip(":"),
            "weights_dtype": "float32",
            "seq_len": 8,
            "device": "cpu",
            **fields,
        }
    )
    _, step = prepare(resolve(spec))
    for group in step.optimizer.param_groups:
        group["lr"] = 1e-2
    return step


def weights(step: TrainStep) -> dict[str, torch.Tensor]:
    """Copies of the weights that are adapted, by the path of their layer."""
    return {
        name.removesuffix(".base_layer.weight"): parameter.detach().clone()
        for name, parameter in step.model.named_parameters()
        if name.endswith(".base_layer.weight")
    }


def products(step: TrainStep) -> dict[str, torch.Tensor]:
    """The scaled products of the layers, as peft would merge them."""
    with torch.no_grad():
        return {
            name: module.get_delta_weight("default").clone()
            for name, module in step.model.named_modules()
            if hasattr(module, "get_delta_weight")
        }


@pytest.mark.parametrize("family", ["opt", "gpt2", "llama"])
@pytest.mark.parametrize("ratio", [2.0, -0.5])
def test_weights_move_by_the_change_of_the_product(
    models: dict[str, str], family: str, ratio: float
) -> None:
    step = step_of(models[family], f"r=4,delta_lambda={ratio}")
    step(Unwatched())
    for _ in range(3):
        before, product = weights(step), products(step)
        step(Unwatched())
        after, new = weights(step), products(step)
        for name in before:
            moved = after[name] - before[name]
            change = new[name] - product[name]
            assert change.abs().max() > 0
            # As near as float32 holds a sum with the weight.
            torch.testing.assert_close(moved, ratio * change, rtol=1e-4, atol=1e-7)


def test_weights_of_16_bits_move_to_the_nearest_of_theirs(models: dict[str, str]) -> None:
    step = step_of(models["opt"], weights_dtype="bfloat16")
    step(Unwatched())
    before, product = weights(step), products(step)
    step(Unwatched())
    after, new = weights(step), products(step)
    for name in before:
        assert after[name].dtype == torch.bfloat16
        change = 2 * (new[name] - product[name]).float()
        # bfloat16 has 8 significant bits; the change is rounded to them, and then the sum.
        torch.testing.assert_close(
            after[name].float(),
            before[name].float() + change,
            rtol=2**-8,
            atol=2**-8 * float(change.abs().max()),
        )
        assert not torch.equal(after[name], before[name])


@pytest.mark.parametrize("start", [0, 2])
def test_nothing_moves_before_the_start(models: dict[str, str], start: int) -> None:
    """Algorithm 1 of the paper counts from 0 and moves after step K."""
    step = step_of(models["opt"], f"delta_start={start}")
    first = weights(step)
    for _ in range(start + 1):
        step(Unwatched())
    assert all(torch.equal(first[name], weight) for name, weight in weights(step).items())
    step(Unwatched())
    assert not any(torch.equal(first[name], weight) for name, weight in weights(step).items())


def test_weights_have_no_gradient(models: dict[str, str]) -> None:
    step = step_of(models["opt"], stack="script")  # which keeps the gradients after a step
    for _ in range(2):
        step(Unwatched())
    for name, parameter in step.model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name)


@pytest.mark.parametrize("device", ["sim:cpu", "rtx-4090"])
def test_the_factors_of_the_step_before_are_optimizer_state(
    models: dict[str, str], device: str
) -> None:
    fields: dict[str, Any] = {"model": models["opt"], "seq_len": 8, "device": device}
    plain = run(RunSpec(method="lora", **fields)).memory
    delta = run(RunSpec(method="delta-lora", **fields)).memory
    assert plain.after_step_allocated is not None
    assert delta.after_step_allocated is not None
    factors = plain.at_peak["adapter_parameters"]
    assert delta.at_peak["adapter_parameters"] == factors
    assert delta.at_peak["optimizer_state"] - plain.at_peak["optimizer_state"] == factors


def test_quantised_weights_are_refused(models: dict[str, str]) -> None:
    record = run(RunSpec(model=models["opt"], method="delta-lora", quantization="nf4", seq_len=8))
    assert record.status == "unsupported"
    assert "quantised" in (record.error or "")
    with pytest.raises(UsageError, match="quantised"):
        run(RunSpec(model=models["opt"], method="delta-lora:r=4", quantization="nf4", seq_len=8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("delta_lambda=much", "delta_lambda must be a number"),
        ("delta_start=-1", "delta_start must be 0 or more"),
        ("delta_start=0.5", "delta_start must be 0 or more"),
        ("lora_dropout=0.1", "no lora_dropout"),
        ("use_dora=true", "no use_dora"),
        ("rr=8", "did you mean r"),
    ],
)
def test_a_wrong_option_is_one_line(models: dict[str, str], options: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        resolve(RunSpec(model=models["opt"], method=f"delta-lora:{options}", seq_len=8))
    assert "\n" not in str(raised.value)


def test_a_lora_config_file_is_no_delta_lora() -> None:
    method = of_type("LORA")
    assert method is not None
    assert "delta_lambda" not in method.defaults
