"""Reduce.cuh's own answers: `setReduceConfig`, compiled from the headers of PyTorch 2.13."""

from __future__ import annotations

import pytest
import torch

from profiler.bench.cuda import reductions
from profiler.hardware.devices import device

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("card", "shape", "reduced", "expected"),
    [
        ("t4", (8192, 4096), {0}, [20971520, 128]),
        ("t4", (8192, 16384), {0}, [67108864, 512]),
        ("a100-80gb", (8192, 4096), {0}, [113246208, 128]),
        ("a100-80gb", (8192, 16384), {0}, [117440512, 512]),
        ("a100-80gb", (2, 1024, 2048), {0, 1}, [33554432, 64]),
        ("a100-80gb", (4, 512, 768), {0, 1}, [12582912, 24]),
        ("a100-80gb", (2, 8, 1024, 64), {0, 2}, [8388608, 16]),
        ("a100-80gb", (128, 64), {0}, []),
        ("a100-80gb", (4096, 4096), {1}, []),
        ("a100-80gb", (1000, 77), {0}, []),
    ],
)
def test_buffers(card: str, shape: tuple[int, ...], reduced: set[int], expected: list[int]) -> None:
    tensor = torch.empty(shape, device="meta")
    assert reductions.global_buffers(shape, tensor.stride(), reduced, 4, device(card)) == expected


def test_the_sum_of_a_biass_gradient() -> None:
    grad = torch.empty(8192, 4096, dtype=torch.bfloat16, device="meta")
    sizes = reductions.sizes(aten.sum.dim_IntList, (grad, [0], True), {}, device("a100-80gb"))
    # 54 blocks for each column of 32 threads by 4 outputs, each block's sums kept for each thread.
    assert sizes == [4 * 4096 * 54 * 32 * 4, 4 * 32]


def test_integers_are_not_summed_in_float32() -> None:
    ones = torch.empty(8192, 4096, dtype=torch.int64, device="meta")
    assert reductions.sizes(aten.sum.dim_IntList, (ones, [0]), {}, device("a100-80gb")) == []
