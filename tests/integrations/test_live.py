"""A live model simulated: what it gives, and that nothing of it is touched."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from agreement import tracked
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensor
from transformers import LlamaConfig, LlamaForCausalLM

import profiler
from profiler.bench.measured import prepare
from profiler.errors import UnsupportedError, UsageError
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.quantization import quant_state_tensors
from profiler.subject.workloads.train import Unwatched


def tiny() -> Any:
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=128,
    )
    torch.manual_seed(0)
    return get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, lora_dropout=0.1)).train()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(128, (2, 16), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def loop(model: Any, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    inputs = batch()

    def step() -> None:
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def contents(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """All that could be touched: identity, place in memory, bits, flags."""
    found: list[Any] = [torch.get_rng_state().tolist(), random.getstate()]

    def tensor(name: str, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            found.append((name, value))
            return
        assert not isinstance(value, FakeTensor)
        data = value.detach().clone().reshape(-1).view(torch.uint8).tolist()
        found.append((name, id(value), value.data_ptr(), value._version, data))

    for name, parameter in model.named_parameters(remove_duplicate=False):
        tensor(name, parameter)
        found.append(parameter.requires_grad)
        tensor(f"{name}.grad", parameter.grad)
    for name, buffer in model.named_buffers():
        tensor(name, buffer)
    for name, module in model.named_modules():
        found.append((name, module.training, sorted(vars(module)), len(module._forward_pre_hooks)))
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            tensor(f"{id(parameter)}.{name}", value)
    for group in optimizer.param_groups:
        found.append({key: value for key, value in group.items() if key != "params"})
        found.append([id(parameter) for parameter in group["params"]])
    found.append((torch.autograd.backward, torch.nn.functional.scaled_dot_product_attention))
    return found


@pytest.mark.parametrize("device", ["sim:cpu", "rtx-4090"])
@pytest.mark.parametrize("raises", [False, True])
def test_nothing_is_touched(device: str, raises: bool) -> None:
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step = loop(model, optimizer)
    step()
    model(**batch()).loss.backward()  # gradients are there, too
    model.base_model.model.model.layers[1].eval()
    before = contents(model, optimizer)

    def broken() -> None:
        step()
        model.eval()
        optimizer.param_groups[0]["lr"] = 7.0
        random.random()
        torch.rand(3)
        if raises:
            raise ZeroDivisionError

    if raises:
        with pytest.raises(ZeroDivisionError):
            profiler.profile(broken, model=model, optimizer=optimizer, device=device)
    else:
        profiler.profile(broken, model=model, optimizer=optimizer, device=device)
    assert contents(model, optimizer) == before


def test_training_goes_on_as_if_it_had_not_been() -> None:
    models = [tiny(), tiny()]
    for index, model in enumerate(models):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        step = loop(model, optimizer)
        torch.manual_seed(3)
        for _ in range(2):
            step()
            if index:
                profiler.profile(step, model=model, optimizer=optimizer, device="l40s")
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    from tiny import write

    model = write(tmp_path_factory.mktemp("models"))["llama"]
    return RunSpec(
        model=model, method="lora:r=4", stack="script", batch_size=2, seq_len=24, device="cpu"
    )


def live(spec: RunSpec, device: str, *, trained: int = 0) -> Any:
    """The spec's model and loop as someone's own, who leaves torch its choices.

    Args:
        trained: real steps that were taken before.
    """
    try:
        subject, step = prepare(resolve(spec))
    except UnsupportedError as error:  # an older peft has no 8-bit layers here
        pytest.skip(str(error))
    for _ in range(trained):
        step(Unwatched())
    for group in step.optimizer.param_groups:
        group["foreach"] = None
    return profiler.profile(
        lambda: step(Unwatched()), model=subject.model, optimizer=step.optimizer, device=device
    )


@pytest.mark.parametrize(
    ("fields", "trained"),
    [({}, 0), ({}, 2), ({"method": "qlora"}, 1), ({"quantization": "int8"}, 1)],
)
def test_as_this_cpu_it_is_what_the_real_step_takes(
    spec: RunSpec, fields: dict[str, Any], trained: int
) -> None:
    spec = spec.replace(**fields)
    record, measured = live(spec, "sim:cpu", trained=trained), tracked(spec)
    assert record.source == "simulated"
    assert record.memory.phases == measured.memory.phases
    assert record.memory.at_peak == measured.memory.at_peak
    assert record.memory.modules == measured.memory.modules
    assert record.memory.after_step_allocated == measured.memory.after_step_allocated
    assert record.flops == measured.flops
    assert record.params == measured.params


@pytest.mark.parametrize("method", ["lora:r=4", "full"])
def test_as_a_gpu_it_is_the_simulation_of_its_spec(spec: RunSpec, method: str) -> None:
    spec = spec.replace(method=method)
    record, simulated = live(spec, "rtx-4090"), profiler.run(spec.replace(device="rtx-4090"))
    assert record.memory.phases == simulated.memory.phases
    assert record.memory.at_peak == simulated.memory.at_peak
    assert record.memory.modules == simulated.memory.modules
    assert record.flops == simulated.flops
    assert record.params == simulated.params
    assert record.fits is not None
    assert record.time is not None
    assert simulated.time is not None
    assert record.time.step == simulated.time.step
    assert record.time.tokens_per_second == simulated.time.tokens_per_second
    assert any("loading" in sentence for sentence in record.approximations)


def test_packed_weights_are_not_touched(spec: RunSpec) -> None:
    subject, step = prepare(resolve(spec.replace(method="qlora", optimizer="adamw-8bit")))
    step(Unwatched())

    def packed() -> list[Any]:
        found: list[Any] = [id(step.optimizer.name2qmap["dynamic"])]
        for parameter in subject.model.parameters():
            state = getattr(parameter, "quant_state", None)
            found.append((id(parameter), type(parameter), id(state), parameter.data_ptr()))
            for name, tensor, holder in quant_state_tensors(parameter):
                found.append((name, id(tensor), id(holder), tensor.tolist()))
        return found

    before, state = packed(), contents(subject.model, step.optimizer)
    for device in ("sim:cpu", "t4"):
        profiler.profile(
            lambda: step(Unwatched()), model=subject.model, optimizer=step.optimizer, device=device
        )
    assert packed() == before
    assert contents(subject.model, step.optimizer) == state


def test_what_depends_on_values_is_refused() -> None:
    model = tiny()

    def step() -> None:
        logits = model(**batch()).logits
        logits[logits > 0].sum().backward()
        model(**batch()).logits.detach().nonzero()

    with pytest.raises(UsageError, match="values"):
        profiler.profile(step, model=model, device="sim:cpu")
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_record_is_kept_like_any_other() -> None:
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = profiler.profile(loop(model, optimizer), model=model, optimizer=optimizer)
    again = profiler.Record.from_json(record.to_json())
    assert again == record
    assert record.spec["model"] == "LlamaForCausalLM"
    assert record.label == "live"
    assert record.spec["device"] == "a100-80gb"


def test_autocast_of_a_gpu_is_entered() -> None:
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = batch()

    def step(device_type: str) -> None:
        with torch.autocast(device_type, torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    plain = profiler.profile(loop(model, optimizer), model=model, optimizer=optimizer)
    records = [
        profiler.profile(partial(step, where), model=model, optimizer=optimizer)
        for where in ("cpu", "cuda")
    ]
    assert records[0].memory.at_peak == records[1].memory.at_peak
    assert records[0].memory.at_peak["activations"] != plain.memory.at_peak["activations"]


def test_a_full_card_is_said() -> None:
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = profiler.profile(
        loop(model, optimizer), model=model, optimizer=optimizer, device="t4", vram="512MiB"
    )
    assert record.fits is not None
    assert (record.status == "oom") == (record.fits.headroom < 0)


def test_a_frozen_model_beside_it_counts_as_inputs() -> None:
    model, teacher = tiny(), tiny()
    teacher.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = batch()
    weights = copy.deepcopy(teacher.state_dict())

    def step() -> None:
        with torch.no_grad():
            wanted = teacher(**inputs).logits
        (model(**inputs).logits - wanted).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    record = profiler.profile(step, model=model, optimizer=optimizer, device="sim:cpu")
    size = sum(item.numel() * item.element_size() for item in teacher.parameters())
    assert record.memory.at_peak["inputs"] >= size
    assert all(torch.equal(weights[name], item) for name, item in teacher.state_dict().items())


def test_real_tensors_are_not_written_to() -> None:
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    total = torch.zeros(3)
    step = loop(model, optimizer)

    def counting() -> None:
        step()
        total.add_(1)

    with pytest.raises(UsageError, match="writes to a real tensor"):
        profiler.profile(counting, model=model, optimizer=optimizer, device="sim:cpu")
    assert total.tolist() == [0, 0, 0]


def test_what_is_trained_must_be_given() -> None:
    model, other = tiny(), torch.nn.Linear(128, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = batch()
    with pytest.raises(UsageError, match="model="):
        profiler.profile(
            lambda: other(model(**inputs).logits).sum().backward(),
            model=model,
            optimizer=optimizer,
            device="sim:cpu",
        )
    assert other.weight.grad is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"device": "cpu"}, "profiler.watch"),
        ({"device": "a1000000"}, "unknown"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_wrong_use_is_said(wrong: dict[str, Any], said: str) -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(UsageError, match=said):
        profiler.profile(lambda: None, model=model, **wrong)
