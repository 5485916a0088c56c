"""Training loops watched as they run, and a real `Trainer` with the callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import profiler
from profiler.integrations.clocks import KEPT_STEPS, measured_time
from profiler.record import Record
from profiler.trace import PHASES


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
    return get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4)).train()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(128, (2, 16))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def one_step(model: Any, optimizer: torch.optim.Optimizer, passes: int = 1) -> None:
    for _ in range(passes):
        model(**batch()).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def functions() -> list[Any]:
    from torch.optim import optimizer

    hooks = (optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks)
    return [torch.autograd.backward, torch.autograd.grad, *(len(item) for item in hooks)]


@pytest.mark.parametrize("passes", [1, 2])
def test_a_loop_is_watched(passes: int) -> None:
    model, before = tiny(), functions()
    optimizer = torch.optim.AdamW(model.parameters())
    with profiler.watch(model, optimizer) as watched:
        assert watched.record is None
        for _ in range(4):
            one_step(model, optimizer, passes)
    record = watched.record
    assert record is not None
    assert functions() == before
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    assert (record.status, record.source) == ("ok", "measured")
    assert record.spec["steps"] == len(record.step_seconds) == 4
    time = record.time
    assert time is not None
    assert time.spread is not None
    assert time.spread["p20"] <= time.spread["median"] <= time.spread["p80"]
    assert time.step == time.spread["median"]
    assert all(time.phases[phase] > 0 for phase in PHASES)
    assert time.tokens_per_second * time.step == pytest.approx(2 * 16 * passes)
    assert record.memory.peak_allocated is None
    assert record.memory.process is not None
    assert record.memory.process["rss_peak"] >= record.memory.process["rss_before"] > 0
    assert Record.from_json(record.to_json()) == record


def test_a_traced_step_is_the_simulated_one() -> None:
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    with profiler.watch(model, optimizer, trace=True) as watched:
        for _ in range(3):
            one_step(model, optimizer)
    record = watched.record
    assert record is not None
    simulated = profiler.profile(
        lambda: one_step(model, optimizer), model=model, optimizer=optimizer, device="sim:cpu"
    )
    assert record.memory.peak_allocated == simulated.memory.peak_allocated
    assert record.memory.phases["backward"] == simulated.memory.phases["backward"]
    assert record.memory.at_peak == simulated.memory.at_peak
    assert record.flops == simulated.flops
    assert record.params == simulated.params
    assert record.time is not None


def test_a_loop_without_a_second_step_is_not_traced() -> None:
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    with profiler.watch(model, optimizer, trace=True) as watched:
        one_step(model, optimizer)
    record = watched.record
    assert record is not None
    assert record.memory.at_peak == {}
    assert any("second step" in sentence for sentence in record.approximations)


@pytest.mark.parametrize("trace", [False, True])
def test_a_loop_that_breaks_off_leaves_nothing_behind(trace: bool) -> None:
    model, before = tiny(), functions()
    optimizer = torch.optim.AdamW(model.parameters())
    watched = profiler.watch(model, optimizer, trace=trace)

    def broken() -> None:
        with watched:
            one_step(model, optimizer)
            model(**batch()).loss.backward()
            raise ZeroDivisionError("the data is gone")

    with pytest.raises(ZeroDivisionError):
        broken()
    assert functions() == before
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None
    assert watched.record is not None
    assert (watched.record.status, watched.record.error) == (
        "failed",
        "ZeroDivisionError: the data is gone",
    )
    assert watched.record.memory.at_peak == {}


def test_no_step_is_no_result() -> None:
    model = tiny()
    with profiler.watch(model) as watched:
        model(**batch())
    assert watched.record is not None
    assert watched.record.status == "failed"
    assert "optimizer.step()" in str(watched.record.error)


def test_times_are_medians() -> None:
    steps = [dict.fromkeys(PHASES, float(size)) for size in range(1, 12)]
    time = measured_time(steps, tokens=36)
    assert (time.step, time.phases["forward"], time.tokens_per_second) == (18.0, 6.0, 2.0)
    assert time.spread == {"p20": 9.0, "median": 18.0, "p80": 27.0}
    assert len(steps) < KEPT_STEPS


class Data(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(16) + index
        return {"input_ids": ids, "labels": ids}


def trained(folder: Path, callback: Any, **more: Any) -> Any:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=3,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        **more,
    )
    trainer = Trainer(tiny(), arguments, train_dataset=Data(), callbacks=[callback])
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_trainer_with_the_callback(tmp_path: Path, accumulation: int) -> None:
    before = functions()
    callback = profiler.TrainerCallback()
    trainer = trained(tmp_path, callback, gradient_accumulation_steps=accumulation)
    assert trainer.state.global_step == 3
    assert functions() == before
    record = callback.record
    assert record is not None
    assert Record.from_json((tmp_path / "peft_profile.json").read_text()) == record
    assert (record.status, record.source, record.spec["steps"]) == ("ok", "measured", 3)
    assert record.time is not None
    assert record.time.tokens_per_second * record.time.step == pytest.approx(32 * accumulation)
    assert all(record.time.phases[phase] > 0 for phase in PHASES)


def test_a_trainer_is_not_changed_by_it(tmp_path: Path) -> None:
    watched = trained(tmp_path / "a", profiler.TrainerCallback(trace=True))
    plain = trained(tmp_path / "b", TrainerCallback())
    pairs = zip(watched.model.parameters(), plain.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_training_that_broke_off_is_closed_by_the_next(tmp_path: Path) -> None:
    class Broken(Data):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            raise ZeroDivisionError

    before, callback = functions(), profiler.TrainerCallback()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], max_steps=1)
    trainer = Trainer(tiny(), arguments, train_dataset=Broken(), callbacks=[callback])
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    callback.close()
    assert functions() == before
    assert callback.record is not None
    assert callback.record.status == "failed"
