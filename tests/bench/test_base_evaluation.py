"""An evaluation of the base model before the training: what it leaves behind."""

from __future__ import annotations

import pytest
import tiny
from agreement import assert_same_bytes, both

from profiler.execute import run
from profiler.spec import RunSpec


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny.write(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("method", ["lora-fa", "qlora", "prompt-tuning", "full"])
def test_simulated_is_measured(models: dict[str, str], method: str) -> None:
    measured, simulated = both(
        model=models["llama"], method=method, stack="script", base_evaluation=True
    )
    assert_same_bytes(measured, simulated)


def test_it_undoes_what_lora_fa_froze(models: dict[str, str]) -> None:
    """The frozen matrices are trainable again: they get gradients, and no optimizer state."""
    spec = RunSpec(
        model=models["llama"], method="lora-fa", stack="script", seq_len=24, device="sim:cpu"
    )
    frozen, thawed = run(spec), run(spec.replace(base_evaluation=True))
    lora = run(spec.replace(method="lora", optimizer="adamw"))
    assert frozen.params == thawed.params  # counted before, as users count them
    assert frozen.params is not None
    assert lora.params is not None
    numbers = lora.params.trainable - frozen.params.trainable
    assert numbers > 0
    after = [record.memory.after_step_allocated for record in (frozen, thawed)]
    assert after[1] == (after[0] or 0) + 4 * numbers


def test_a_gpu_packs_no_weights_for_an_evaluation(models: dict[str, str]) -> None:
    spec = RunSpec(model=models["llama"], method="qlora", stack="script", seq_len=24)
    plain, evaluated = run(spec), run(spec.replace(base_evaluation=True))
    assert evaluated.memory.at_peak == plain.memory.at_peak
