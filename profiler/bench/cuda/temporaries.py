"""What CUDA kernels allocate for themselves while they run: sizes in bytes, by op.

No tracker sees these; each entry cites the file it was read in (PyTorch 2.13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

Inside = Callable[..., list[int]]

INSIDE: dict[Any, Inside] = {}

#: Elements that a multi-tensor kernel gives to one block (ForeachReduceOp.cu, kChunkSize).
_CHUNK = 65536


def _inside(*ops: Any) -> Callable[[Inside], Inside]:
    def add(function: Inside) -> Inside:
        for op in ops:
            if op in INSIDE:
                raise ValueError(f"{op} has two entries")
            INSIDE[op] = function
        return function

    return add


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@_inside(aten._softmax_backward_data.default)
def _softmax_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """`Tensor tmp = grad * output;` (aten/src/ATen/native/cuda/SoftMax.cu)."""
    grad, output = args[0], args[1]
    element = max(grad.element_size(), output.element_size())
    return [grad.numel() * element]


@_inside(aten.embedding_dense_backward.default)
def _embedding_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """Sorted indices, their order, and the sort's buffers, above 3072 indices
    (aten/src/ATen/native/cuda/Embedding.cu); the segments' sums are not counted."""
    indices = args[1]
    if indices.numel() <= 3072:
        return []
    return [_bytes(indices)] * 4


@_inside(
    aten._scaled_dot_product_flash_attention_backward.default,
)
def _flash_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """dsoftmax sum, the query gradient's float accumulator, and for grouped heads the key's and
    value's gradients per query head (flash_attn/flash_api.cpp, `mha_bwd`)."""
    query, key = args[1], args[2]
    batch, heads, length, head = query.shape
    return _flash_sizes(batch, heads, key.size(1), length, key.size(2), head, query.element_size())


@_inside(aten._flash_attention_backward.default)
def _flash_2_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """As above, in the layout of the flash-attention package."""
    query, key = args[1], args[2]
    batch, length, heads, head = query.shape
    return _flash_sizes(batch, heads, key.size(2), length, key.size(1), head, query.element_size())


def _flash_sizes(
    batch: int, heads: int, kv_heads: int, length: int, kv_length: int, head: int, element: int
) -> list[int]:
    rounded = _up(length, 128)
    width = _up(head, 32) if head <= 128 else _up(head, 64)
    sizes = [batch * heads * rounded * 4, batch * rounded * heads * width * 4]
    if kv_heads != heads:
        sizes += [batch * kv_length * heads * head * element] * 2
    return sizes


@_inside(aten.linalg_pinv.atol_rtol_tensor)
def _pinv(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """A square matrix's singular vectors U and V, and beside them first the copy that cuSOLVER
    overwrites (aten/src/ATen/native/cuda/linalg/BatchLinearAlgebraLib.cpp, `svd_cusolver`), then V
    by the inverse singular values (aten/src/ATen/native/LinearAlgebra.cpp, `linalg_pinv`)."""
    return [_bytes(args[0])] * 3


@_inside(aten._foreach_norm.Scalar)
def _foreach_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """A partial result for each chunk of the longest tensor, float32
    (aten/src/ATen/native/cuda/ForeachReduceOp.cu, `foreach_tensor_norm_cuda`)."""
    tensors = args[0]
    chunks = max(-(-tensor.numel() // _CHUNK) for tensor in tensors)
    return [len(tensors) * chunks * 4]
