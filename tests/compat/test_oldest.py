"""The oldest supported libraries: transformers 4.48.1 and peft 0.13.2, against a measured run.

github.com/foundation-model-stack/fms-acceleration at 876e2ed6fc4e,
scripts/benchmarks/refs/a100_80gb.csv: Mistral-7B, one A100 80 GB, transformers.Trainer, packed
sequences of 4096, flash-attention 2, reentrant checkpointing, adamw_torch; exact bytes of
torch.cuda.max_memory_allocated and of what was resident after a step.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from invariants import check_invariants
from packaging.version import Version
from tiny import write

from profiler.errors import UsageError
from profiler.execute import run
from profiler.record import Record
from profiler.spec import RunSpec
from profiler.subject import methods

OLDEST = Version(transformers.__version__) < Version("4.49")


@pytest.mark.skipif(not OLDEST, reason="the published run had transformers 4.48.1")
@pytest.mark.parametrize(
    ("method", "peak", "resident"),
    [
        ("full", 72_434_837_504, 43_467_876_352),
        (
            "lora:r=16,lora_alpha=16,lora_dropout=0.1,target_modules=q_proj+k_proj+v_proj+o_proj",
            26_704_571_904,
            14_664_493_056,
        ),
    ],
)
def test_mistral_on_an_a100(method: str, peak: int, resident: int) -> None:
    record = simulated(
        model="mistral-7b",
        model_override=("vocab_size=32003",),
        method=method,
        batch_size=4,
        seq_len=4096,
        device="a100-80gb",
        attention="flash_attention_2",
        checkpointing="reentrant",
        optimizer="adamw",
    )
    assert record.memory.peak_allocated == pytest.approx(peak, rel=0.001)
    assert record.memory.after_step_allocated == pytest.approx(resident, rel=0.001)


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2", "bloom"])
@pytest.mark.parametrize("method", methods.names())
def test_every_method_runs(tmp_path: Path, method: str, family: str) -> None:
    # With these versions Trainer passes num_items_in_batch to BLOOM, which refuses it.
    stack = "script" if family == "bloom" else "trainer"
    model = write(tmp_path)[family]
    spec = RunSpec(model=model, method=method, seq_len=16, stack=stack)
    if OLDEST and method == "lora-fa":
        with pytest.raises(UsageError, match=r"peft 0\.16\.0"):
            run(spec)
        return
    record = run(spec)
    if (method, family) == ("bitfit", "llama"):
        assert record.status == "unsupported"
        return
    if OLDEST and (method, family) == ("prefix-tuning", "llama"):
        # peft 0.13.2 hands Llama a tuple for a cache, which transformers 4.48 takes no longer.
        assert "get_seq_length" in (record.error or "")
        return
    assert record.status == "ok", record.error
    check_invariants(record)


def simulated(**fields: object) -> Record:
    record = run(RunSpec(**fields))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    return record
