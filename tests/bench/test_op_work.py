"""What ops read, write and launch, by ops on real tensors under the tracker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from profiler.bench.modules import ModulePaths
from profiler.bench.tracker import Rules, StorageTracker
from profiler.subject.shadows import Shadows
from profiler.trace import Op, Trace


def ops_of(step: Callable[[], Any], *, cache: int = 0, host: bool = False) -> list[Op]:
    """The ops of a step, as the tracker notes them."""
    trace = Trace(cuda=False, source="measured")
    shadows = Shadows()
    shadows.enabled = False
    paths = ModulePaths(nn.Linear(1, 1))
    tracker = StorageTracker(trace, paths, Rules(cache_bytes=cache, host=host), shadows)
    with paths.watching(), tracker:
        tracker.phase("forward")
        step()
        tracker.close()
    return trace.ops


def only(ops: list[Op], name: str) -> Op:
    (op,) = [one for one in ops if one.name == f"aten.{name}"]
    return op


def test_an_elementwise_op_reads_its_operands_and_writes_its_result() -> None:
    a, b = torch.ones(30, 20), torch.ones(30, 20)
    assert only(ops_of(lambda: a * b), "mul").nbytes == 3 * 2400
    assert only(ops_of(lambda: a.mul_(b)), "mul_").nbytes == 3 * 2400


def test_an_expanded_operand_counts_once() -> None:
    a, row = torch.ones(30, 20), torch.ones(20)
    assert only(ops_of(lambda: a * row.expand(30, 20)), "mul").nbytes == 2 * 2400 + 80


def test_a_lookup_reads_the_rows_it_takes() -> None:
    table, at = torch.ones(1000, 8), torch.arange(5)
    op = only(ops_of(lambda: nn.functional.embedding(at, table)), "embedding")
    assert op.nbytes <= 2 * 5 * 8 * 4 + 5 * 8


def test_what_is_filled_is_not_read() -> None:
    a = torch.ones(50, 4)
    assert only(ops_of(lambda: torch.zeros_like(a)), "zeros_like").nbytes == 800
    assert only(ops_of(lambda: a.zero_()), "zero_").nbytes == 800
    assert only(ops_of(lambda: a.copy_(torch.ones(4))), "copy_").nbytes == 800 + 16


def test_foreach_ops_in_place_write_what_they_read() -> None:
    tensors = [torch.ones(100) for _ in range(300)]
    op = only(ops_of(lambda: torch._foreach_mul_(tensors, 2.0)), "_foreach_mul_")
    assert op.nbytes == 2 * 300 * 400
    assert (op.items, op.kernels) == (300, 3)  # 110 tensors a launch
    large = [torch.ones(1 << 21) for _ in range(12)]  # 32 chunks each, 320 a launch
    assert only(ops_of(lambda: torch._foreach_mul_(large, 2.0)), "_foreach_mul_").kernels == 2


def test_views_and_empty_tensors_launch_nothing() -> None:
    a = torch.ones(6, 4)
    ops = ops_of(lambda: a.t()[1:].unsqueeze(0).mul(2))
    assert only(ops, "mul").views == 3
    assert all(op.kernels == 0 for op in ops_of(lambda: torch.empty_like(a)))


def test_modules_are_counted_at_the_first_op_that_they_run() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    ops = ops_of(lambda: model(torch.ones(2, 3)))
    assert sum(op.modules for op in ops) == 3


@pytest.mark.parametrize(
    ("step", "name", "product"),
    [
        (lambda: torch.ones(5, 7) @ torch.ones(7, 3), "mm", (1, 5, 3, 7)),
        (lambda: torch.ones(4, 5, 7) @ torch.ones(4, 7, 3), "bmm", (4, 5, 3, 7)),
        (lambda: nn.functional.linear(torch.ones(5, 7), torch.ones(3, 7), torch.ones(3)),
         "addmm", (1, 5, 3, 7)),
    ],
)  # fmt: skip
def test_products_keep_their_shape(
    step: Callable[[], Any], name: str, product: tuple[int, ...]
) -> None:
    op = only(ops_of(step), name)
    assert op.product == product
    assert op.flops == 2 * product[0] * product[1] * product[2] * product[3]
    assert op.kernels == 1


def test_an_operand_that_is_dense_in_neither_dimension_is_copied_before() -> None:
    a, b = torch.ones(5, 7, 4).permute(2, 0, 1), torch.ones(4, 7, 3)
    dense = only(ops_of(lambda: torch.bmm(a.contiguous(), b)), "bmm")
    askew = only(ops_of(lambda: torch.bmm(a, b)), "bmm")
    assert askew.kernels == 2
    assert askew.nbytes == dense.nbytes + 2 * 5 * 7 * 4 * 4


def test_what_was_just_touched_is_in_the_cache() -> None:
    a = torch.ones(1000)
    other = torch.ones(10_000)

    def step() -> None:
        b = a * 2
        b * 3
        other * 2
        b * 5

    first, second, _, last = ops_of(step, cache=20_000)
    assert (first.cached, second.cached, last.cached) == (0, 4000, 0)
    assert all(op.cached == 0 for op in ops_of(step))


def test_a_value_of_the_device_makes_the_host_wait() -> None:
    a = torch.ones(3)
    assert only(ops_of(lambda: a.sum().item()), "_local_scalar_dense").waits


def test_a_literal_stays_on_the_host() -> None:
    ops = ops_of(lambda: torch.tensor(3.0).item(), host=True)
    assert not any(op.waits or op.kernels for op in ops)
    assert [op.name for op in ops] == ["aten._local_scalar_dense"]


def test_a_transform_passes_over_each_dimension() -> None:
    a = torch.ones(8, 8, dtype=torch.complex64)
    one = only(ops_of(lambda: torch.fft.fft(a)), "_fft_c2c")
    two = only(ops_of(lambda: torch.fft.fft2(a)), "_fft_c2c")
    scaled = only(ops_of(lambda: torch.fft.ifft2(a)), "_fft_c2c")
    assert (one.kernels, two.kernels, scaled.kernels) == (1, 2, 3)
    assert two.nbytes == 2 * one.nbytes


def test_blocks_are_copied_one_by_one() -> None:
    blocks = [torch.ones(2, 2) for _ in range(9)]
    assert only(ops_of(lambda: torch.block_diag(*blocks)), "block_diag").kernels == 10
