"""The `trainer` stack under mixed precision beside a real `transformers.Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from agreement import tracked
from packaging.version import Version
from real_trainer import described, watch

from profiler.bench.measured import prepare
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import models

SEQ_LEN = 24


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


@pytest.mark.slow
@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5"), reason="of transformers 5's settings"
)
@pytest.mark.parametrize(
    ("family", "method", "weights_dtype", "autocast"),
    [
        ("llama", "lora", "bfloat16", "bfloat16"),
        ("opt", "full", "float32", "bfloat16"),
        ("opt", "lora", "float32", "none"),
    ],
)
def test_a_real_trainer_takes_this_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    method: str,
    weights_dtype: str,
    autocast: str,
) -> None:
    import peft

    spec = RunSpec(
        model=tiny.write(tmp_path)[family],
        method=method,
        device="cpu",
        seq_len=SEQ_LEN,
        weights_dtype=weights_dtype,
        autocast=autocast,
    )
    cell = resolve(spec)
    model: Any = models.build(cell.model, dtype=getattr(torch, weights_dtype), device="cpu")
    model.init_weights()
    if cell.config is not None:
        options = dict(cell.config)
        kind = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[options.pop("peft_type")]
        model = peft.get_peft_model(model, kind(**options))
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path / "out"),
            use_cpu=True,
            bf16=autocast == "bfloat16",
            per_device_train_batch_size=1,
            max_steps=2,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=[{"input_ids": [1] * SEQ_LEN}] * 2,
        data_collator=collate,
    )
    monkeypatch.setattr(trainer, "_remove_unused_columns", lambda dataset, *rest: dataset)
    real = watch(trainer, monkeypatch)

    assert described(prepare(cell)[0].model) == described(trainer.model)
    ours = tracked(spec).memory
    # Beside the step it keeps a few numbers, and its batches come and go otherwise.
    batch_tensor = SEQ_LEN * 8
    for phase, peak in real.phases.items():
        assert ours.phases[phase] == pytest.approx(peak, abs=batch_tensor + 64), phase
