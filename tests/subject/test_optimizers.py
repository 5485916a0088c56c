"""Optimizers: built as the stacks build them, and doing to a model what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft.optimizers
import pytest
import torch
from tiny import write
from transformers import Trainer, TrainingArguments

from profiler.bench.measured import prepare
from profiler.errors import UsageError
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import optimizers
from profiler.subject.optimizers.lora import LORA_PLUS_RATIO
from profiler.subject.subject import build
from profiler.subject.workloads.train import TrainStep, Unwatched

needs_lora_fa = pytest.mark.skipif(
    not hasattr(peft.optimizers, "create_lorafa_optimizer"), reason="peft before 0.16"
)

#: Names here, and of `TrainingArguments.optim`.
TRAINERS = {
    "adamw-fused": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "paged-adamw-32bit": "paged_adamw_32bit",
    "adafactor": "adafactor",
    "lion": "lion_32bit",
    "lion-8bit": "lion_8bit",
    "paged-lion-8bit": "paged_lion_8bit",
    "paged-lion-32bit": "paged_lion_32bit",
    "sgd": "sgd",
}

#: What this package decides: the rate, and what torch would decide by the device.
OWN = {"lr", "foreach", "fused"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(Path(tmp_path_factory.mktemp("models")))["llama"]


def trained(spec: RunSpec) -> TrainStep:
    """The step of a spec, after two steps were really taken here."""
    _, step = prepare(resolve(spec.replace(device="cpu")))
    for _ in range(2):
        step(Unwatched())
    return step


@pytest.mark.parametrize(("name", "theirs"), TRAINERS.items())
def test_it_is_the_optimizer_that_trainer_builds(tmp_path: Path, name: str, theirs: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=theirs, report_to=[])
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    expected = kind([{"params": [parameter], "weight_decay": 0.0}], **settings)
    groups = [{"params": [parameter], "weight_decay": 0.0}]
    built = optimizers.build(name, torch.nn.Module(), groups, cuda=False)
    assert type(built) is type(expected)
    assert without_own(built.param_groups[0]) == without_own(expected.param_groups[0])
    for attribute in ("args", "is_paged"):
        assert attributes(built, attribute) == attributes(expected, attribute)


def without_own(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in {"params", *OWN}}


def attributes(optimizer: Any, name: str) -> Any:
    value = getattr(optimizer, name, None)
    return vars(value) if hasattr(value, "__dict__") else value


@pytest.mark.parametrize("name", ["adamw", "sgd", "lora-plus"])
@pytest.mark.parametrize("cuda", [False, True])
def test_foreach_is_stated_by_device(model: str, name: str, cuda: bool) -> None:
    subject = build(resolve(RunSpec(model=model, optimizer=name)))
    groups = [parameter for parameter in subject.model.parameters() if parameter.requires_grad]
    built = optimizers.build(name, subject.model, groups, cuda=cuda)
    assert all(group["foreach"] is cuda for group in built.param_groups)


@pytest.mark.parametrize("name", ["lora-fa", "lora-plus"])
@pytest.mark.parametrize("method", ["full", "ia3", "prompt-tuning"])
def test_without_lora_layers_it_is_a_usage_error(model: str, method: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"--optimizer {name}") as raised:
        build(resolve(RunSpec(model=model, method=method, optimizer=name)))
    assert "\n" not in str(raised.value)


@needs_lora_fa
@pytest.mark.parametrize("method", ["dora", "lora:lora_bias=true"])
def test_lora_fa_refuses_what_its_step_would_take_for_pairs(model: str, method: str) -> None:
    with pytest.raises(UsageError, match="pairs of lora_A and lora_B") as raised:
        build(resolve(RunSpec(model=model, method=method, optimizer="lora-fa")))
    assert "\n" not in str(raised.value)


def test_lora_fa_needs_a_peft_that_has_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(peft.optimizers, "create_lorafa_optimizer", raising=False)
    with pytest.raises(UsageError, match=r"peft 0\.16\.0.*this is peft") as raised:
        build(resolve(RunSpec(model=model, method="lora-fa")))
    assert "\n" not in str(raised.value)


@needs_lora_fa
def test_lora_fa_counts_as_published(tmp_path: Path) -> None:
    """huggingface/peft, method_comparison/MetaMathQA, Llama-3.2-3B, lora-fa-rank32."""
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "LORA", "r": 32, "lora_alpha": 64}))
    spec = RunSpec(model="llama-3.2-3b", method=str(file), optimizer="lora-fa")
    params = build(resolve(spec)).params
    assert (params.trainable, params.total) == (3_670_016, 3_221_924_864)


@needs_lora_fa
def test_lora_fa_moves_every_b_and_no_a(model: str) -> None:
    spec = RunSpec(model=model, method="lora-fa", seq_len=16)
    _, untouched = prepare(resolve(spec.replace(device="cpu")))
    before = dict(untouched.model.named_parameters())
    for name, parameter in trained(spec).model.named_parameters():
        assert torch.equal(parameter, before[name]) != ("lora_B" in name), name


@needs_lora_fa
@pytest.mark.parametrize("more", ["", ',modules_to_save=["lm_head"]'])
def test_every_state_belongs_to_the_parameter_it_moves(model: str, more: str) -> None:
    """LoRA-FA's states are keyed by name."""
    method = f'lora:target_modules=["q_proj","down_proj"]{more}'
    step = trained(RunSpec(model=model, method=method, optimizer="lora-fa", seq_len=16))
    learned = {id(item): item for item in step.model.parameters() if item.requires_grad}
    found = list(optimizers.states(step.optimizer))
    assert {id(parameter) for parameter, _ in found} == set(learned)
    for parameter, state in found:
        moments = [value for value in state.values() if isinstance(value, torch.Tensor)]
        assert moments
        assert all(moment.shape == parameter.shape for moment in moments)


def test_lora_plus_gives_b_the_larger_rate(model: str) -> None:
    subject = build(resolve(RunSpec(model=model, method="lora-plus")))
    built = optimizers.build("lora-plus", subject.model, [], cuda=True)
    rates = {
        id(parameter): group["lr"] for group in built.param_groups for parameter in group["params"]
    }
    names = {
        name: rates.pop(id(parameter))
        for name, parameter in subject.model.named_parameters()
        if parameter.requires_grad
    }
    assert not rates
    slow = {rate for name, rate in names.items() if "lora_A" in name}
    fast = {rate for name, rate in names.items() if "lora_B" in name}
    assert len(slow) == len(fast) == 1
    assert fast.pop() == pytest.approx(LORA_PLUS_RATIO * slow.pop())


def test_a_name_is_taken_once_and_an_unknown_one_is_told() -> None:
    from profiler.subject.optimizers.registry import register

    with pytest.raises(ValueError, match="twice"):
        register("adamw")(lambda model, groups, cuda: torch.optim.SGD(groups))
    with pytest.raises(UsageError, match="lion"):
        optimizers.check("lions")
