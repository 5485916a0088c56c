"""flash_attention_2 as an implementation of its own, padded batches included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import write

from profiler.bench.cuda import flash_attention_2 as fa2
from profiler.execute import run
from profiler.record import Record
from profiler.spec import RunSpec


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def simulated(model: str, **fields: object) -> Record:
    spec = {"seq_len": 64, "batch_size": 4, "device": "a100-80gb", "method": "full", **fields}
    record = run(RunSpec(model=model, attention="flash_attention_2", **spec))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    return record


@pytest.mark.parametrize("checkpointing", ["none", "reentrant", "non-reentrant"])
def test_a_padded_batch_runs_without_its_padding(
    models: dict[str, str], checkpointing: str
) -> None:
    """Attention sees the tokens alone, the rest of the model the padding, too."""
    whole = simulated(models["llama"], checkpointing=checkpointing)
    padded = simulated(models["llama"], checkpointing=checkpointing, padded=True)
    assert whole.flops is not None
    assert padded.flops is not None
    assert padded.flops.total < whole.flops.total
    few = simulated(models["llama"], checkpointing=checkpointing, padded=True, pad_fraction=0.1)
    assert few.flops is not None
    assert padded.flops.total < few.flops.total < whole.flops.total


def test_as_many_flops_as_sdpa(models: dict[str, str]) -> None:
    """Grouped heads, and a layout with the length before the heads, change nothing."""
    ours = simulated(models["llama"])
    sdpa = run(
        RunSpec(model=models["llama"], seq_len=64, batch_size=4, device="a100-80gb", method="full")
    )
    assert ours.flops == sdpa.flops


def test_what_was_replaced_is_given_back() -> None:
    from transformers import modeling_flash_attention_utils as utils

    before = dict(vars(utils))
    with fa2.installed():
        assert vars(utils)["_lazy_imports"] is not before.get("_lazy_imports")
    assert dict(vars(utils)) == before


def test_padding_is_taken_out_and_put_back() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    states = torch.arange(1.0, 25.0, requires_grad=True).view(2, 4, 3)
    rows, indices, starts, most, lengths = fa2.unpad_input(states, mask)
    assert indices.tolist() == [0, 1, 2, 4]
    assert starts.tolist() == [0, 3, 4]
    assert (most, lengths.tolist()) == (3, [3, 1])
    padded = fa2.pad_input(rows, indices, 2, 4)
    assert torch.equal(padded, states * mask.unsqueeze(-1))
    (grad,) = torch.autograd.grad(padded.sum(), states)
    assert torch.equal(grad, mask.unsqueeze(-1).expand(2, 4, 3).float())
