"""Watching changes no number: the losses are those of a plain script."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from tiny import write
from transformers import AutoConfig, AutoModelForCausalLM

from profiler.bench import weights
from profiler.bench.measured import measure
from profiler.resolve import resolve
from profiler.spec import RunSpec


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2", "bloom"])
def test_losses_are_a_plain_scripts(tmp_path: Path, family: str) -> None:
    folder = write(tmp_path)[family]
    spec = RunSpec(
        model=folder,
        method="lora:r=4,lora_alpha=8,lora_dropout=0.1",
        stack="script",
        weights_dtype="float32",
        optimizer="adamw",
        grad_clip=1.0,
        batch_size=2,
        seq_len=32,
        seed=3,
        steps=2,
        device="cpu",
    )
    measured = measure(resolve(spec)).losses  # type: ignore[attr-defined]

    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config)
    weights.fill(model, seed=3, device="cpu")
    torch.manual_seed(3)
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4
    )
    ids = torch.randint(512, (2, 32), generator=torch.Generator().manual_seed(3))
    plain = []
    for _ in measured:
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        plain.append(loss.item())
    assert measured == plain
