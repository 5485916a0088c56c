"""One small step on four cards, where the sources say that their kernels differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write

from profiler.bench.cuda import versions
from profiler.bench.simulated import simulate
from profiler.hardware import devices
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build
from profiler.trace import Trace

MIB = 2**20
CARDS = ("t4", "a100-80gb", "h100", "rtx-4090")


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    """A full step of OPT on a batch of 64 x 256 tokens, by card."""
    model = write(Path(tmp_path_factory.mktemp("models")))["opt"]
    traces = {}
    for card in CARDS:
        spec = RunSpec(
            model=model,
            method="full",
            device=card,
            seq_len=256,
            batch_size=64,
            weights_dtype="float16",
        )
        cell = resolve(spec)
        traces[card] = simulate(build(cell), cell.spec, devices.device(card))
    return traces


def inside(trace: Trace, op: str) -> int:
    """The most that a call of an op takes for itself, in bytes."""
    found = [block for block in trace.blocks if block.op == op and block.category == "temporaries"]
    return max((block.nbytes for block in found), default=0)


@pytest.mark.skipif(not versions.keeps_cublas_workspaces(), reason="torch 2.15 keeps none")
def test_cublas_workspaces(traces: dict[str, Trace]) -> None:
    """Two handles, one of the thread that runs the forward and one of autograd's."""
    taken = {
        card: [block.nbytes for block in trace.blocks if block.category == "workspaces"]
        for card, trace in traces.items()
    }
    small, large = 8 * MIB + 128 * 1024, 32 * MIB
    assert taken == {
        "t4": [small] * 2,
        "a100-80gb": [small] * 2,
        "rtx-4090": [small] * 2,
        "h100": [large] * 2,
    }


def test_attention(traces: dict[str, Trace]) -> None:
    """A T4 has no flash kernel, and an H100 asks cuDNN first, whose workspace only cuDNN knows."""
    kernels = {"t4": "efficient", "a100-80gb": "flash", "rtx-4090": "flash", "h100": "cudnn"}
    for card, trace in traces.items():
        ran = {op.name for op in trace.ops}
        expected = f"aten._scaled_dot_product_{kernels[card]}_attention_backward"
        assert {name for name in ran if "attention_backward" in name} == {expected}
        assert any("cuDNN" in note for note in trace.approximations) == (card == "h100")


def test_what_attention_takes_for_itself(traces: dict[str, Trace]) -> None:
    """For 256 heads: 4 tiles of 64 x 64 sums behind their counters on a T4, 256 rows of 32 (of a
    head size of 16, rounded) on an A100, of 16 and a sum on an H100."""
    heads = 64 * 4
    op = "aten._scaled_dot_product_{}_attention_backward".format
    assert inside(traces["t4"], op("efficient")) == heads * 4 * (64 * 64 * 4 + 16)
    for card in ("a100-80gb", "rtx-4090"):
        assert inside(traces[card], op("flash")) == heads * 256 * 32 * 4
    assert inside(traces["h100"], op("cudnn")) == heads * 256 * (16 + 1) * 4


def test_reductions_fill_the_card(traces: dict[str, Trace]) -> None:
    """A bias's gradient: 128 outputs are one column of 32 threads by 4, so that its blocks are as
    many as the card runs at once, at most one for every 16 numbers of a thread."""
    resident = {
        card: devices.device(card).sm_count * threads // 128
        for card, threads in (("t4", 1024), ("a100-80gb", 2048), ("rtx-4090", 1536))
    }
    per_thread = 64 * 256 // 4
    for card, blocks in resident.items():
        expected = 4 * 128 * min(blocks, per_thread // 16) * 32 * 4
        assert inside(traces[card], "aten.sum") == expected
    assert inside(traces["t4"], "aten.sum") > 0
