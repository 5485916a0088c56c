"""What kernels take for themselves, derived by hand from the sources that temporaries.py cites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import write

from profiler.bench.cuda import temporaries
from profiler.bench.cuda.temporaries import (
    embedding_backward,
    flash_backward,
    flash_forward,
    flash_head,
    flash_splits,
    flash_varlen_backward,
    inside,
)
from profiler.bench.cuda.workspaces import PRODUCTS
from profiler.bench.simulated import simulate
from profiler.hardware.devices import device
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build

aten = torch.ops.aten
A100 = device("a100-80gb")


def half(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def rule(op: Any, *args: Any, card: str = "a100-80gb", **kwargs: Any) -> list[int]:
    return inside(device(card))[op](args, kwargs)


@pytest.mark.parametrize(
    ("head", "rounded"), [(8, 32), (64, 64), (80, 96), (160, 160), (192, 192), (200, 256)]
)
def test_head_sizes_of_flash(head: int, rounded: int) -> None:
    assert flash_head(head) == rounded


@pytest.mark.parametrize(
    ("batch", "heads", "head", "queries", "keys", "splits"),
    [
        (4, 32, 128, 4096, 4096, 1),  # 8192 blocks of queries fill 2 * 108 processors
        (1, 12, 64, 512, 512, 2),  # 96 of 216; two blocks of 256 keys
        (1, 12, 64, 256, 256, 1),  # one block of keys
        (1, 4, 128, 64, 2048, 16),  # 4 of 216; each block of 128 keys by itself
        # 64 blocks of 216: 3 parts are 0.889 of a wave, more than 0.85 of the best
        (1, 32, 128, 128, 1024, 3),
    ],
)
def test_splits_of_a_flash_forward(
    batch: int, heads: int, head: int, queries: int, keys: int, splits: int
) -> None:
    assert flash_splits(batch, heads, head, queries, keys, 108) == splits


def test_a_split_forward_keeps_each_parts_result() -> None:
    query = half(1, 512, 12, 64)
    rows = 2 * 12 * 512 * 4
    assert flash_forward(query, query, 0.0, 108) == [rows, rows * 64]
    assert flash_forward(query, query, 0.1, 108) == []  # no splits with dropout
    sdpa = query.transpose(1, 2)
    op = aten._scaled_dot_product_flash_attention.default
    assert rule(op, sdpa, sdpa, sdpa, 0.0, True) == [rows, rows * 64]
    assert rule(op, sdpa, sdpa, sdpa, 0.0, True, card="a10g") == []  # 80 processors are filled


def test_a_flash_backward() -> None:
    grad, query, out = half(2, 100, 8, 80), half(2, 100, 8, 80), half(2, 100, 8, 80)
    key = half(2, 100, 2, 80)
    rows = 2 * 8 * 128 * 4
    own = 2 * 100 * 8 * 80 * 2
    assert flash_backward(grad, query, query, out) == [rows, rows * 96]
    assert flash_backward(grad, query, key, out) == [rows, rows * 96, own, own]
    turned = grad.transpose(1, 2).contiguous().transpose(1, 2)
    assert flash_backward(turned, query, query, out) == [own, rows, rows * 96]


def test_a_flash_backward_of_joined_sequences() -> None:
    query, key = half(150, 8, 64), half(150, 2, 64)
    rows = 8 * (150 + 128 * 3) * 4
    own = 150 * 8 * 64 * 2
    assert flash_varlen_backward(query, query, key, query, 3) == [rows, rows * 64, own, own]


def test_what_cudnns_frontend_asks_for_in_a_backward() -> None:
    """The query's gradient in float32, and a number for each query."""
    query, key = half(2, 8, 100, 64), half(2, 2, 100, 64)
    op = aten._scaled_dot_product_cudnn_attention_backward.default
    expected = 2 * 8 * 100 * 64 * 4 + 2 * 8 * 100 * 4
    assert rule(op, query, query, key, key, query, card="h100") == [expected]


def test_few_embedded_tokens_are_not_sorted() -> None:
    indices = torch.empty(3, 1024, dtype=torch.int64, device="meta")
    args = (half(3, 1024, 64), indices, 32000, -1, False)
    assert embedding_backward(args, 108) == []


def test_many_embedded_tokens_are_summed_by_tens() -> None:
    indices = torch.empty(4, 1024, dtype=torch.int64, device="meta")
    sizes = embedding_backward((half(4, 1024, 512), indices, 32000, -1, False), 108)
    partial = 4096 // 10 + 4096
    lists = [4096 * 8] * 5 + [8, 8]
    assert sizes == [*lists, partial * 8, partial * 512 * 4]


def test_few_rows_of_an_embedding_are_added_up_in_float32() -> None:
    """Two token types for 65536 tokens: 6555 parts, and two blocks to add them."""
    indices = torch.empty(64, 1024, dtype=torch.int64, device="meta")
    sizes = embedding_backward((half(64, 1024, 768), indices, 2, -1, False), 108)
    partial = 65536 // 10 + 2
    assert sizes == [*[65536 * 8] * 3, 16, 16, 8, 8, partial * 8, partial * 8, 2 * 768 * 4]


@given(st.integers(3073, 10**6), st.integers(1, 10**5), st.sampled_from([64, 768, 4096]))
def test_an_embeddings_sums_have_room_for_every_token(count: int, rows: int, width: int) -> None:
    indices = torch.empty(count, dtype=torch.int64, device="meta")
    sizes = embedding_backward((half(count, width), indices, rows, -1, False), 108)
    assert sum(sizes) > 3 * count * 8
    assert max(sizes) >= min(count, rows) * width * 4


def test_adding_at_indices_sorts_them() -> None:
    indices = torch.empty(100, dtype=torch.int64, device="meta")
    out, values = half(400, 64), half(100, 64)
    op = aten._index_put_impl_.default
    assert rule(op, out, [indices], values, True, True) == [800] * 6
    assert rule(op, out, [indices], values, False) == []


def test_a_factor_without_a_unit_stride_is_copied() -> None:
    factor, other = half(64, 32), half(32, 16)
    assert rule(aten.mm.default, factor, other) == []
    assert rule(aten.mm.default, factor, half(16, 32).t()) == []
    rows_apart = half(64, 40)[:, :32]
    assert rule(aten.mm.default, rows_apart, other) == []
    expanded = half(1, 1).expand(64, 32)
    assert rule(aten.mm.default, expanded, other) == [64 * 32 * 2]
    bias = half(16)
    assert rule(aten.addmm.default, bias, expanded, other) == [64 * 32 * 2]


def test_the_products_of_a_softmaxs_backward() -> None:
    grad, output = half(2, 8, 16, 16), half(2, 8, 16, 16)
    op = aten._softmax_backward_data.default
    assert rule(op, grad, output, -1, torch.bfloat16) == [2 * 8 * 16 * 16 * 2]
    assert rule(op, grad.float(), output.float(), -1, torch.bfloat16) == [2 * 8 * 16 * 16 * 4]


def test_no_op_has_two_rules() -> None:
    rules = temporaries.inside(A100)
    assert len(rules) == len(set(rules))


def test_a_structured_kernels_result_is_there_before_what_it_takes(tmp_path: Path) -> None:
    cell = resolve(
        RunSpec(
            model=write(tmp_path)["llama"],
            method="lora",
            device="t4",
            attention="eager",
            batch_size=2,
            seq_len=16,
        )
    )
    blocks = simulate(build(cell), cell.spec, device("t4")).blocks
    workspaces = [at for at, block in enumerate(blocks) if block.op == "cublas_workspace"]
    assert len(workspaces) == 2
    assert all(blocks[at - 1].op in PRODUCTS for at in workspaces)
    softmax = [block.dtype for block in blocks if block.op == "aten._softmax_backward_data"]
    assert softmax
    assert [dtype == "uint8" for dtype in softmax] == [False, True] * (len(softmax) // 2)
