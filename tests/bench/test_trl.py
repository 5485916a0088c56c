"""SFTTrainer's step: measured on this CPU and simulated, and what its loss saves on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from agreement import assert_same_bytes, both
from invariants import check_invariants
from tiny import write

from profiler.errors import NotBuiltError, UsageError
from profiler.execute import run
from profiler.record import Record
from profiler.resolve import resolve
from profiler.spec import RunSpec


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def simulated(**fields: object) -> Record:
    spec = {"seq_len": 32, "device": "a100-80gb", "stack": "trl", **fields}
    record = run(RunSpec(**spec))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    return record


@pytest.mark.parametrize("family", ["opt", "llama"])
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("checkpointing", ["reentrant", "non-reentrant"])
def test_a_cpu_step_is_as_simulated(
    models: dict[str, str], family: str, method: str, checkpointing: str
) -> None:
    measured, simulation = both(
        model=models[family],
        method=method,
        stack="trl",
        checkpointing=checkpointing,
        weights_dtype="float32" if family == "opt" else "bfloat16",
    )
    assert_same_bytes(measured, simulation)


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "full"},
        {"loss": "full", "method": "prompt-tuning", "checkpointing": "none"},
        {"method": "prompt-tuning", "batch_size": 2, "padded": True},
        {"method": "qlora", "kbit_prepare": "trl"},
        {"method": "lora:use_dora=true", "quantization": "nf4", "loop": "script"},
        {"grad_accumulation": 2, "grad_clip": 0.0},
        {"autocast": "none"},
    ],
)
def test_other_settings_are_as_simulated(models: dict[str, str], fields: dict[str, object]) -> None:
    measured, simulation = both(model=models["llama"], stack="trl", **fields)
    assert_same_bytes(measured, simulation)


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2", "bloom"])
@pytest.mark.parametrize("loss", ["chunked", "full"])
def test_a_gpu_is_simulated(models: dict[str, str], family: str, loss: str) -> None:
    for method in ("lora", "qlora", "full"):
        record = simulated(
            model=models[family], method=method, loss=loss, batch_size=2, padded=True
        )
        check_invariants(record)
        assert record.memory.at_peak["logits_and_loss"] > 0


def test_tiles_keep_the_logits_small(models: dict[str, str]) -> None:
    """A tile is 4096 tokens by 32768 words in 16 bits, however large the vocabulary; logits are
    not, and their copies are in 32."""
    vocabulary, tokens = 131072, 4096
    chunked, full = (
        simulated(
            model=models["llama"],
            model_override=(f"vocab_size={vocabulary}", "max_position_embeddings=8192"),
            seq_len=tokens,
            loss=loss,
        ).memory.at_peak["logits_and_loss"]
        for loss in ("chunked", "full")
    )
    tile = tokens * 32768 * 2
    assert tile <= chunked <= 1.1 * tile
    assert full >= 2 * vocabulary * tokens * 4


def test_only_labelled_positions_are_scored_on_a_gpu(models: dict[str, str]) -> None:
    """Triton's head leaves padding out; a tile has a row for each position that is scored."""
    fields = {"model": models["llama"], "seq_len": 64, "padded": True}
    few, many = (
        simulated(**fields, pad_fraction=share).memory.at_peak["logits_and_loss"]
        for share in (0.5, 0.25)
    )
    row = 32768 * 2
    assert many - few == pytest.approx(16 * row, rel=0.02)


def test_flops_count_the_head_three_times(models: dict[str, str]) -> None:
    """Forward, forward again in the backward, and the gradient of the hidden states."""
    fields = {"model": models["llama"], "checkpointing": "none", "autocast": "none"}
    chunked, full = (simulated(**fields, loss=loss).flops for loss in ("chunked", "full"))
    assert chunked is not None
    assert full is not None
    # One position less than the model's own head has; a product is two operations.
    head = 2 * 64 * 512
    assert chunked.phases["forward"] == full.phases["forward"] - head
    assert chunked.phases["backward"] == full.phases["backward"] + 30 * head


def test_experts_are_balanced(models: dict[str, str], tmp_path: Path) -> None:
    """SFTTrainer adds the balancing loss of a mixture of experts, unless its weight is 0."""
    config = tmp_path / "mixtral.json"
    config.write_text(
        '{"model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 512,'
        ' "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,'
        ' "num_local_experts": 4}'
    )
    fields = {"model": str(config), "method": "lora:target_modules=q_proj"}
    measured, simulation = both(**fields, stack="trl")
    assert_same_bytes(measured, simulation)
    without = run(
        RunSpec(
            **fields,  # type: ignore[arg-type]
            stack="trl",
            seq_len=24,
            device="sim:cpu",
            model_override=("router_aux_loss_coef=0.0",),
        )
    )
    assert without.memory.phases["forward"] < simulation.memory.phases["forward"]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"loss": "chunked", "stack": "trainer"}, NotBuiltError, "use --stack trl"),
        ({"stack": "trl", "use_cache": True}, UsageError, "use_cache=False"),
        ({"method": "qlora", "kbit_prepare": "trl"}, UsageError, "add --autocast bfloat16"),
    ],
)
def test_what_does_not_go_together_is_refused(
    models: dict[str, str], fields: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolve(RunSpec(model=models["llama"], **fields))  # type: ignore[arg-type]


def test_an_adapter_on_the_head_is_refused(models: dict[str, str]) -> None:
    fields = {"model": models["llama"], "stack": "trl", "seq_len": 8}
    record = run(RunSpec(**fields, method="lora:target_modules=lm_head"))  # type: ignore[arg-type]
    assert record.status == "unsupported"
    assert "output head" in (record.error or "")
