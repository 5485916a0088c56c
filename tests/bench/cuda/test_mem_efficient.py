"""Sizes derived by hand from kernel_backward.h and attention_backward.cu of PyTorch 2.13."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler.bench.cuda.mem_efficient import (
    BACKWARD,
    backward_kernel,
    backward_sizes,
    backward_workspace,
    forward_sizes,
)

T4, V100, A100, A10G, H100 = (7, 5), (7, 0), (8, 0), (8, 6), (9, 0)
half, bf16, full = torch.float16, torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype", "head", "drops", "block"),
    [
        (T4, half, 64, False, (64, 64)),
        (T4, half, 96, False, (128, 64)),
        (A100, bf16, 128, False, (128, 128)),
        (A100, half, 128, True, (128, 128)),
        (A10G, bf16, 96, False, (128, 64)),  # there for sm_86 and sm_89 alone
        (A10G, bf16, 128, False, (64, 64)),  # 128 x 128 asks for more shared memory than 99 KiB
        (A100, bf16, 96, False, (128, 128)),
        (A100, full, 128, False, (128, 64)),
        (A10G, full, 128, False, (64, 64)),
        (H100, bf16, 256, False, (128, 64)),
        (V100, full, 256, False, (64, 64)),
    ],
)
def test_the_kernel(
    capability: tuple[int, int], dtype: torch.dtype, head: int, drops: bool, block: tuple[int, int]
) -> None:
    kernel = backward_kernel(capability, dtype, head, drops)
    assert (kernel.rows, kernel.columns) == block


def test_no_kernel_for_bfloat16_before_sm_80() -> None:
    with pytest.raises(ValueError, match="no memory-efficient backward"):
        backward_kernel(T4, bf16, 64, False)


@pytest.mark.parametrize(
    ("capability", "dtype", "shape", "nbytes"),
    [
        # 1024 queries are 16 tiles of 64, each 64 * 64 * 4 + 16 bytes, for 2 * 32 heads.
        (T4, half, (2, 32, 1024, 1024, 64), 64 * 16 * 16400),
        # 300 queries are 3 tiles of 128, and a head of 128 is one tile of 128.
        (A100, bf16, (2, 8, 300, 300, 128), 16 * 3 * (128 * 128 * 4 + 16)),
        # No registers for the key's gradient: 5 blocks of 64 keys, split in 5 (of at most
        # 200 // 16), two tiles of 64 * 128; 5 tiles of 64 queries by 2 of 64 of the head.
        (A10G, bf16, (2, 8, 300, 300, 128), 16 * (2 * 5 * 64 * 128 * 4 + 5 * 2 * 16400)),
        # As many as 200 heads are not split.
        (A10G, bf16, (8, 32, 300, 300, 128), 256 * (2 * 1 * 64 * 128 * 4 + 5 * 2 * 16400)),
    ],
)
def test_the_workspace(
    capability: tuple[int, int], dtype: torch.dtype, shape: tuple[int, ...], nbytes: int
) -> None:
    batch, heads, queries, keys, head = shape
    kernel = backward_kernel(capability, dtype, head, False)
    half_precision = dtype != full
    args = (kernel, half_precision, batch, heads, queries, keys, head, head)
    assert backward_workspace(*args) == nbytes


_Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def tensors(dtype: torch.dtype, *shape: int) -> _Tensors:
    """Gradient, query, key and value, (batch, heads, length, head size) as views of (batch, length,
    heads, head size)."""
    batch, heads, length, head = shape
    one = torch.empty(batch, length, heads, head, dtype=dtype, device="meta").transpose(1, 2)
    return one, one, one, one


def test_delta_is_the_kernels_own_in_16_bits() -> None:
    sizes = backward_sizes(A100, *tensors(bf16, 2, 4, 64, 64), 0.0)
    assert sizes == [2 * 4 * 64 * 4, 8 * 16400]


def test_delta_is_made_of_whole_temporaries_in_float32() -> None:
    """The product, its sum over the head, and the sum transposed."""
    sizes = backward_sizes(A100, *tensors(full, 2, 4, 64, 64), 0.0)
    product, delta = 2 * 4 * 64 * 64 * 4, 2 * 4 * 64 * 4
    assert sum(sizes) == max(product + 2 * delta, delta + 8 * 16400)
    long_head = backward_sizes(A100, *tensors(full, 2, 4, 64, 512), 0.0)
    assert long_head == [2 * 4 * 64 * 4, 8 * 8 * (128 * 64 * 4 + 16)]


def test_a_gradient_in_another_layout_is_copied() -> None:
    grad, query, key, value = tensors(bf16, 2, 4, 64, 64)
    plain = backward_sizes(A100, grad, query, key, value, 0.0)
    copied = backward_sizes(A100, grad.contiguous(), query, key, value, 0.0)
    assert sum(copied) - sum(plain) == grad.numel() * 2


def test_the_forward_keeps_a_large_output_in_float32_memory() -> None:
    small, large = tensors(half, 2, 4, 64, 128)[0], tensors(half, 2, 4, 64, 136)[0]
    assert forward_sizes(small, small) == []
    assert forward_sizes(large, large) == [2 * 64 * 4 * 136 * 4]
    assert forward_sizes(large.float(), large.float()) == []


@given(
    st.sampled_from(sorted(BACKWARD, key=str)),
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from([8, 64, 80, 128, 200]),
)
def test_the_workspace_covers_the_querys_gradient(
    kind: tuple[int, torch.dtype, bool], batch: int, heads: int, queries: int, keys: int, head: int
) -> None:
    for kernel in BACKWARD[kind]:
        if kernel.max_head < head:
            continue
        args = (batch, heads, queries, keys, head, head)
        nbytes = backward_workspace(kernel, kind[1] != full, *args)
        assert nbytes >= batch * heads * queries * head * 4
        assert nbytes % (16 * batch * heads) == 0
