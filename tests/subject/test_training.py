"""Every registered method really trains: by the same step that is profiled, on a small model.

The tests go over the registry, so a new method is tested by being there. A model in float32 learns
to repeat a short pattern; a method must lower its loss, move what it trains and nothing else, and
survive being saved, loaded and merged.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIGS

from profiler.bench import weights
from profiler.errors import UnsupportedError
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec
from profiler.subject import methods, models
from profiler.subject.quantization import quant_state_tensors, quantize
from profiler.subject.subject import Subject, build
from profiler.subject.workloads.train import TrainStep, Unwatched

STEPS = 30

#: How much of the loss must be gone after so many steps.
FALL = 0.08

#: AdamW moves each number by about this in a step, whatever its gradient.
LEARNING_RATE = 1e-2

#: What learns more slowly than that, and why.
LEARNING_RATES = {
    **dict.fromkeys(
        # A prompt acts only through the attention that it draws.
        ("prompt-tuning", "multitask-prompt-tuning", "cartridge", "prefix-tuning", "cpt"),
        1e-1,
    ),
    # A few numbers for a whole model or layer, which only scale or mix what is there.
    **dict.fromkeys(("supertuning", "tinylora", "pvera", "vera", "ia3", "beft"), 1e-1),
    # What it adds is divided by the width of its input (peft/tuners/c3a/layer.py).
    "c3a": 1e-1,
}

#: Options of a method whose preset cannot go far in a short run.
OPTIONS = {
    # It keeps each change of an embedding within a small ball (peft/tuners/cpt/model.py).
    "cpt": "cpt:opt_projection_epsilon=10,opt_projection_format_epsilon=10",
}

#: Paths of trained parameters that cannot move.
IDLE = (
    # Shadow updates its state after every layer, and after the last one nothing reads it.
    r".*\.layers\.1\.shadow_update_.*",
)

#: The model that a method is trained on is the first that it supports: with biases, with gated
#: feed-forward and grouped heads, and one wide enough for methods that work in blocks.
MODELS: dict[str, dict[str, Any]] = {
    "opt": CONFIGS["opt"],
    "llama": CONFIGS["llama"],
    "wide": {
        **CONFIGS["llama"],
        "hidden_size": 256,
        "num_key_value_heads": 4,
        "intermediate_size": 256,
    },
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A small model's ops are shorter than what it takes to share them out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Trained:
    """A model after `STEPS` steps, and what was known of it before the first."""

    cell: Cell
    subject: Subject
    batch: dict[str, torch.Tensor]
    loss_before: float
    loss_after: float
    before: dict[str, torch.Tensor]
    required: frozenset[str]

    @property
    def model(self) -> Any:
        return self.subject.model


def fill(model: torch.nn.Module) -> None:
    """Weights as large as a trained model's, and no bias zero or scale one: either would hide what
    a method multiplies with it."""
    weights.fill(model, seed=0, device="cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            for name, tensor, _ in quant_state_tensors(parameter):
                if name in ("nested_absmax", "offset"):
                    tensor.mul_(5)
            if parameter.dim() >= 2 and parameter.is_floating_point():
                parameter.mul_(5)
            elif parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


def pattern(subject: Subject) -> dict[str, torch.Tensor]:
    """Two sequences of 16 tokens that count to four again and again."""
    ids = (torch.arange(32) % 4).view(2, 16)
    more = subject.method.inputs(subject.config, 2)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids, **more}


@functools.cache
def supported(method: str) -> tuple[Cell, Subject]:
    """The method on the first of the models that it goes with."""
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        for name, config in MODELS.items():
            file = Path(folder, f"{name}.json")
            file.write_text(json.dumps(config))
            cell = resolve(
                RunSpec(
                    model=str(file),
                    method=OPTIONS.get(method, method),
                    weights_dtype="float32",
                    batch_size=2,
                    seq_len=16,
                    device="cpu",
                )
            )
            if cell.unsupported:
                reasons.append(cell.unsupported)
                continue
            torch.manual_seed(0)
            try:
                return cell, build(cell, device="cpu", fill=fill)
            except UnsupportedError as error:
                reasons.append(str(error))
    pytest.skip("; ".join(dict.fromkeys(reasons)))


@functools.cache
def trained(method: str) -> Trained:
    cell, subject = supported(method)
    batch = pattern(subject)
    step = TrainStep(subject, cell.spec, batch, cuda=False)
    for group in step.optimizer.param_groups:
        group["lr"] = LEARNING_RATES.get(method, LEARNING_RATE)
    before = {name: tensor.clone() for name, tensor in everything(subject.model).items()}
    required = frozenset(
        name for name, parameter in subject.model.named_parameters() if parameter.requires_grad
    )
    loss_before = loss(subject.model, batch)
    subject.model.train()
    for _ in range(STEPS):
        step(Unwatched())
    return Trained(
        cell=cell,
        subject=subject,
        batch=batch,
        loss_before=loss_before,
        loss_after=loss(subject.model, batch),
        before=before,
        required=required,
    )


def everything(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by path, and what belongs to packed weights."""
    found = {name: tensor.detach() for name, tensor in model.named_buffers()}
    for name, parameter in model.named_parameters():
        found[name] = parameter.detach()
        for part, tensor, _ in quant_state_tensors(parameter):
            found[f"{name}.{part}"] = tensor
    return found


def logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the real tokens: soft prompts have some before them. No loss is asked for: peft's AdaLoRA
    has none for a model that was loaded to be used."""
    without_dropout(model)
    asked = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        answer: torch.Tensor = model(**asked).logits
    return answer[:, -batch["input_ids"].shape[1] :]


def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    without_dropout(model)
    with torch.no_grad():
        return float(model(**batch).loss)


def without_dropout(model: torch.nn.Module) -> None:
    """Evaluation mode; but in that mode bitsandbytes packs 4-bit weights anew on some CPUs, and
    cannot train with them any more (bitsandbytes/nn/modules.py, `Linear4bit.forward`)."""
    model.eval()
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.train()


@pytest.mark.parametrize("method", methods.names())
def test_the_loss_falls(method: str) -> None:
    run = trained(method)
    assert run.loss_after < (1 - FALL) * run.loss_before


@pytest.mark.parametrize("method", methods.names())
def test_what_is_trained_moves_and_nothing_else(method: str) -> None:
    run = trained(method)
    after = everything(run.model)
    assert after.keys() == run.before.keys()
    moved = {name for name in after if not torch.equal(after[name], run.before[name])}
    idle = {name for name in run.required if any(re.fullmatch(pattern, name) for pattern in IDLE)}
    assert run.required - idle <= moved
    if not list(run.subject.method.state(run.model)):  # what else it moves, it must remember
        assert moved <= run.required


@pytest.mark.parametrize("method", methods.names())
def test_a_saved_adapter_loads_back_to_the_same_outputs(method: str, tmp_path: Path) -> None:
    run = trained(method)
    expected = logits(run.model, run.batch)
    after = everything(run.model)
    if isinstance(run.model, peft.PeftModel):
        run.model.save_pretrained(tmp_path)
        assert [file.name for file in tmp_path.rglob("*.safetensors")] == [
            "adapter_model.safetensors"
        ]
        torch.manual_seed(0)
        fresh: Any = peft.PeftModel.from_pretrained(base(run.cell), tmp_path)
    else:
        file = tmp_path / "trained.safetensors"
        save_file({name: after[name].contiguous() for name in run.required}, file)
        fresh = build(run.cell, device="cpu", fill=fill).model
        fresh.load_state_dict(load_file(file), strict=False)
    beside = {
        name: after[name]
        for name in run.before
        if name not in run.required and not torch.equal(after[name], run.before[name])
    }
    fresh.load_state_dict(beside, strict=False)
    torch.testing.assert_close(logits(fresh, run.batch), expected)


def base(cell: Cell) -> Any:
    """The model of a cell without a method, as it was filled."""
    spec = cell.spec
    model = models.build(cell.model, dtype=torch.float32, attention=spec.attention, device="cpu")
    model.config.use_cache = spec.use_cache
    if spec.quantization not in (None, "none"):
        assert spec.quantization is not None
        quantize(model, spec.quantization, compute_dtype=torch.float32)
    fill(model)
    return model


@pytest.mark.parametrize("method", methods.names())
def test_merged_equals_unmerged(method: str) -> None:
    run = trained(method)
    tuner = getattr(run.model, "base_model", None)
    if not isinstance(run.model, peft.PeftModel) or not hasattr(tuner, "merge_and_unload"):
        pytest.skip("nothing to merge")
    if run.cell.spec.quantization != "none":
        pytest.skip("merging into packed weights rounds to their few values")
    expected = logits(run.model, run.batch)
    close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    try:
        copied = copy.deepcopy(run.model)
    except RuntimeError:  # trained rows of a tied embedding: the head's weight is computed
        run.model.merge_adapter()
        close(logits(run.model, run.batch), expected)
        run.model.unmerge_adapter()
        close(logits(run.model, run.batch), expected)
        return
    try:
        merged = copied.merge_and_unload()
    except NotImplementedError:
        pytest.skip("no change of the weights does the same, peft says")
    close(logits(merged, run.batch), expected)
