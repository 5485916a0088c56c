"""Which of the model's own parameters a method trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import write

from profiler.errors import UsageError
from profiler.execute import run
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import Subject, build


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def subject(model: str, method: str, **fields: Any) -> Subject:
    return build(resolve(RunSpec(model=model, method=method, **fields)))


def trained(model: str, method: str, **fields: Any) -> set[str]:
    named = subject(model, method, **fields).model.named_parameters()
    return {name for name, parameter in named if parameter.requires_grad}


@pytest.mark.parametrize(
    ("model", "count"),
    [
        # A LayerNorm has a scale and a bias, an RMSNorm a scale; two a layer and one at the end,
        # one after BLOOM's embedding, two on the queries and keys of Qwen3's layers.
        ("opt-125m", (2 * 12 + 1) * 2 * 768),
        ("llama-3.2-1b", (2 * 16 + 1) * 2048),
        ("bloom-560m", (2 * 24 + 2) * 2 * 1024),
        ("qwen3-4b", (2 * 36 + 1) * 2560 + 36 * 2 * 128),
    ],
)
def test_norm_tuning_trains_every_norm(model: str, count: int) -> None:
    assert subject(model, "norm-tuning").params.trainable == count


@pytest.mark.parametrize("k", [1, 3])
def test_last_k_trains_the_last_layers_and_nothing_else(models: dict[str, str], k: int) -> None:
    fields: dict[str, Any] = {"model_override": ("num_hidden_layers=4",), "seq_len": 8}
    names = trained(models["llama"], f"last-k:k={k}", **fields)
    layers = {name.split("layers.")[1].split(".")[0] for name in names}
    assert layers == {str(number) for number in range(4 - k, 4)}
    every = trained(models["llama"], "full", **fields)
    assert names == {name for name in every if any(f"layers.{layer}." in name for layer in layers)}


def test_what_is_before_the_last_layers_has_no_backward(models: dict[str, str]) -> None:
    fields: dict[str, Any] = {
        "model": models["opt"],
        "batch_size": 4,
        "seq_len": 128,
        "device": "sim:cpu",
    }
    last = run(RunSpec(method="last-k:k=1", **fields))
    every = run(RunSpec(method="full", **fields))
    output = 4 * 128 * 64 * 2  # the first layer's, in bfloat16, which the last one reads
    assert first_layer(last.memory.modules) == output
    assert first_layer(every.memory.modules) > 4 * output
    assert last.flops is not None
    assert every.flops is not None
    assert last.flops.phases["forward"] == every.flops.phases["forward"]
    assert last.flops.phases["backward"] < every.flops.phases["backward"]


def first_layer(modules: dict[str, dict[str, int]]) -> int:
    """Bytes that the first layer keeps for the backward."""
    return sum(
        columns["activations"]
        for path, columns in modules.items()
        if path.startswith("model.decoder.layers.0")
    )


def test_packed_weights_stay_frozen(models: dict[str, str]) -> None:
    names = trained(models["opt"], "last-k:k=1", quantization="nf4", seq_len=8)
    assert names
    assert not any(name.endswith("fc1.weight") for name in names)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("last-k:k=0", "from 1 to 2"),
        ("last-k:k=3", "from 1 to 2"),
        ("last-k:k=half", "from 1 to 2"),
        ("last-k:layers=1", "unknown option"),
        ("norm-tuning:k=1", "no option 'k'"),
    ],
)
def test_a_wrong_option_is_one_line(models: dict[str, str], method: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        resolve(RunSpec(model=models["opt"], method=method, seq_len=8))
    assert "\n" not in str(raised.value)
