"""What CUDA kernels allocate for themselves while they run: sizes in bytes, by op.

No tracker sees these; each entry cites the file it was read in (PyTorch 2.13). Where a kernel frees
one buffer before it takes the next, an entry lists those of its fullest moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from profiler.bench.accumulation import is_dense
from profiler.bench.cuda import mem_efficient, reductions, versions
from profiler.bench.cuda.workspaces import cublas_workspace
from profiler.hardware.devices import Device

aten = torch.ops.aten

Inside = Callable[..., list[int]]

#: Ops whose kernel begins with its result allocated: structured ones (`structured_delegate` in
#: aten/src/ATen/native/native_functions.yaml), and memory-efficient attention
#: (transformers/cuda/attention.cu, attention_backward.cu). The others make it later, or on the way.
RESULT_FIRST = frozenset(
    {
        aten.mm.default,
        aten.addmm.default,
        aten.bmm.default,
        aten.baddbmm.default,
        aten._softmax_backward_data.default,
        *reductions.OPS,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_efficient_attention_backward.default,
    }
)

#: Elements that a multi-tensor kernel gives to one block (ForeachReduceOp.cu, kChunkSize).
_CHUNK = 65536

#: Up to so many indices the embedding's gradient is summed without sorting them
#: (aten/src/ATen/native/cuda/Embedding.cu, `embedding_dense_backward_cuda`).
_UNSORTED = 3072
#: aten/src/ATen/native/cuda/EmbeddingBackwardKernel.cu: NROWS_PER_THREAD, MAX_BLOCK_SIZE
#: (SortingCommon.cuh), MAX_ATOMIC_ACCUM_BLOCKS_PER_SM.
_ROWS_PER_THREAD, _BLOCK, _BLOCKS_PER_SM = 10, 1024, 4


def inside(device: Device) -> dict[Any, Inside]:
    """The rules of one card, by op."""
    rules: dict[Any, Inside] = {}

    def add(*ops: Any) -> Callable[[Inside], Inside]:
        def register(function: Inside) -> Inside:
            for op in ops:
                if op in rules:
                    raise ValueError(f"{op} has two entries")
                rules[op] = function
            return function

        return register

    _attention(add, device)
    _products(add, device)
    add(aten._softmax_backward_data.default)(_softmax_backward)
    add(aten.embedding_dense_backward.default)(
        lambda args, kwargs: embedding_backward(args, device.sm_count)
    )
    add(aten._index_put_impl_.default, aten.index_put_.default, aten.index_put.default)(_index_put)
    add(aten.linalg_pinv.atol_rtol_tensor)(_pinv)
    add(aten._foreach_norm.Scalar)(_foreach_norm)
    for op in reductions.OPS:
        add(op)(lambda args, kwargs, op=op: reductions.sizes(op, args, kwargs, device))
    return rules


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


# --- attention -----------------------------------------------------------------------------------


def _attention(add: Callable[..., Callable[[Inside], Inside]], device: Device) -> None:
    capability = device.compute_capability

    @add(aten._scaled_dot_product_efficient_attention.default)
    def efficient(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        return mem_efficient.forward_sizes(args[0], args[2])

    @add(aten._scaled_dot_product_efficient_attention_backward.default)
    def efficient_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        return mem_efficient.backward_sizes(capability, args[0], args[1], args[2], args[3], args[9])

    @add(aten._scaled_dot_product_cudnn_attention_backward.default)
    def cudnn_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        """One allocation of the query gradient's float32 accumulator and the softmax's sums
        (cudnn-frontend, include/cudnn_frontend/node/scaled_dot_product_flash_attention.h,
        `CompositeSDPABackwardNode::get_fe_workspace_size_node`), and of what the plan adds, which
        is not known (aten/src/ATen/native/cudnn/MHA.cpp, `run_cudnn_SDP_bprop`)."""
        batch, heads, length, head = args[1].shape
        return [batch * heads * length * (head + 1) * 4]

    @add(aten._scaled_dot_product_flash_attention.default)
    def flash(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        query, key = args[0].transpose(1, 2), args[1].transpose(1, 2)
        return flash_forward(query, key, args[3] if len(args) > 3 else 0.0, device.sm_count)

    @add(aten._flash_attention_forward.default)
    def flash_2(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        if args[3] is not None:  # sequences of their own lengths are split in decoding alone
            return []
        return flash_forward(args[0], args[1], args[7], device.sm_count)

    @add(aten._scaled_dot_product_flash_attention_backward.default)
    def flash_backward_of_sdpa(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        tensors = (args[index].transpose(1, 2) for index in (0, 1, 2, 4))
        return flash_backward(*tensors)

    @add(aten._flash_attention_backward.default)
    def flash_2_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        grad, query, key, out, starts = args[0], args[1], args[2], args[4], args[6]
        if starts is not None and query.dim() == 3:
            return flash_varlen_backward(grad, query, key, out, starts.numel() - 1)
        return flash_backward(grad, query, key, out)


def flash_head(head: int) -> int:
    """`head_size_rounded` (flash_attn/flash_api.cpp)."""
    rounded = _up(head, 32)
    return rounded if rounded < 224 else 256


def flash_splits(batch: int, heads: int, head: int, queries: int, keys: int, sm_count: int) -> int:
    """In how many parts the keys are gone through where queries alone do not fill the card
    (flash_attn/flash_api.cpp, `set_params_splitkv`, `num_splits_heuristic`)."""
    columns = 256 if head <= 64 else 128 if head <= 128 else 64
    blocks = -(-keys // columns)
    filled = batch * heads * -(-queries // 64)
    processors = 2 * sm_count
    if filled >= 0.8 * processors:
        return 1
    most = min(128, processors, blocks)
    eligible = [
        splits
        for splits in range(1, most + 1)
        if splits == 1 or -(-blocks // splits) != -(-blocks // (splits - 1))
    ]
    waves = {splits: filled * splits / processors for splits in eligible}
    efficiency = {splits: wave / math.ceil(wave) for splits, wave in waves.items()}
    best = max(efficiency.values())
    return next(splits for splits in eligible if efficiency[splits] >= 0.85 * best)


def flash_forward(
    query: torch.Tensor, key: torch.Tensor, dropout: float, sm_count: int
) -> list[int]:
    """`softmax_lse_accum` and `out_accum` in float32, of a forward in several parts
    (flash_attn/flash_api.cpp, `mha_fwd`). Tensors are (batch, length, heads, head size)."""
    batch, queries, heads, head = query.shape
    if dropout:
        return []
    splits = flash_splits(batch, heads, head, queries, key.size(1), sm_count)
    if splits == 1:
        return []
    rows = splits * batch * heads * queries * 4
    return [rows, rows * flash_head(head)]


def flash_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, out: torch.Tensor
) -> list[int]:
    """The softmax's sums, the query gradient's float32 accumulator, and for grouped heads the key's
    and value's gradients per query head (flash_attn/flash_api.cpp, `mha_bwd`); a gradient or output
    that is not contiguous is copied (attention_backward.cu, `_flash_attention_backward`). Tensors
    are (batch, length, heads, head size)."""
    batch, length, heads, head = query.shape
    rows = batch * heads * _up(length, 128) * 4
    return [
        *_copies(grad, out),
        rows,
        rows * flash_head(head),
        *_per_query_head(batch * key.size(1), heads, key),
    ]


def flash_varlen_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, out: torch.Tensor, batch: int
) -> list[int]:
    """As above for sequences joined into one, (tokens, heads, head size): each has 128 rows to
    spare (flash_attn/flash_api.cpp, `mha_varlen_bwd`)."""
    tokens, heads, head = query.shape
    rows = heads * (tokens + 128 * batch) * 4
    return [
        *_copies(grad, out),
        rows,
        rows * flash_head(head),
        *_per_query_head(key.size(0), heads, key),
    ]


def _copies(*tensors: torch.Tensor) -> list[int]:
    return [_bytes(tensor) for tensor in tensors if not tensor.is_contiguous()]


def _per_query_head(tokens: int, heads: int, key: torch.Tensor) -> list[int]:
    if key.size(-2) == heads:
        return []
    return [tokens * heads * key.size(-1) * key.element_size()] * 2


# --- matrix products -----------------------------------------------------------------------------


def _products(add: Callable[..., Callable[[Inside], Inside]], device: Device) -> None:
    workspace = (
        [] if versions.keeps_cublas_workspaces() else [cublas_workspace(device.compute_capability)]
    )

    def rule(first: int) -> Inside:
        def product(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
            factors = args[first : first + 2]
            return [_bytes(item) for item in factors if not _blas_takes(item)] + workspace

        return product

    add(aten.mm.default, aten.bmm.default)(rule(0))
    add(aten.addmm.default, aten.baddbmm.default)(rule(1))


def _blas_takes(matrix: torch.Tensor) -> bool:
    """Whether cuBLAS takes a factor as it lies: one of the last two strides is 1, the other at
    least the row's length (aten/src/ATen/native/cuda/cuBlasCommonArgs.h,
    `prepare_matrix_for_cublas`, and Blas.cpp, `prepare_batch_matrix_for_cublas`); else it is
    cloned."""
    if (
        matrix.layout is not torch.strided
        or matrix.dim() < 2
        or is_dense(matrix.shape, matrix.stride())
    ):
        return True
    rows, columns = matrix.size(-2), matrix.size(-1)
    down, along = matrix.stride(-2), matrix.stride(-1)
    return (along == 1 and down >= max(1, columns)) or (down == 1 and along >= max(1, rows))


# --- the rest ------------------------------------------------------------------------------------


def _softmax_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """`Tensor tmp = grad * output;` (aten/src/ATen/native/cuda/SoftMax.cu)."""
    grad, output = args[0], args[1]
    element = max(grad.element_size(), output.element_size())
    return [grad.numel() * element]


def embedding_backward(args: tuple[Any, ...], sm_count: int) -> list[int]:
    """The indices sorted and their order, then the sums of every ten rows of one index in float32
    (aten/src/ATen/native/cuda/Embedding.cu, `embedding_dense_backward_cuda`, and
    EmbeddingBackwardKernel.cu, `embedding_backward_cuda_kernel`).

    Few distinct indices among many are added up in a gradient of float32 instead. The sort's own
    buffers are freed before the sums are taken.
    """
    grad, indices, weights = args[0], args[1], args[2]
    count, width = indices.numel(), grad.size(-1)
    copied = _copies(grad, indices)
    if count <= _UNSORTED:
        return copied
    index = indices.element_size()
    segments = min(count, weights)
    partial = count // _ROWS_PER_THREAD + segments
    sizes = [
        *copied,
        *[count * index] * 3,  # sorted_indices, orig_indices, segment_offsets
        *[segments * index] * 2,  # partials_per_segment, partials_per_segment_offset
        *[8] * 2,  # num_of_segments, num_of_partial_segments
        partial * index,  # partial_segment_offset
    ]
    warped = _up(width, 32)
    blocks = -(-segments * warped // min(warped, _BLOCK))
    if blocks < sm_count * _BLOCKS_PER_SM and partial > 4 * blocks:
        half = grad.element_size() < 4
        return [*sizes, partial * index, *([weights * width * 4] if half else [])]
    return [*sizes, partial * width * max(4, grad.element_size())]


def _index_put(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """To add at indices they are sorted: linear indices, a range, both sorted, and the sort's
    second buffers for both (aten/src/ATen/native/cuda/Indexing.cu, `index_put_with_sort_kernel`;
    cub/device/dispatch/dispatch_radix_sort.cuh, `InvokeOnesweep`)."""
    accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    if not accumulate:
        return []
    indices = [item for item in args[1] if item is not None]
    if not indices or any(item.dtype in (torch.bool, torch.uint8) for item in indices):
        return []
    count = math.prod(torch.broadcast_shapes(*(item.shape for item in indices)))
    return [*_copies(args[2]), *[count * 8] * 6]


def _pinv(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """A square matrix's singular vectors U and V, and beside them first the copy that cuSOLVER
    overwrites (aten/src/ATen/native/cuda/linalg/BatchLinearAlgebraLib.cpp, `svd_cusolver`), then V
    by the inverse singular values (aten/src/ATen/native/LinearAlgebra.cpp, `linalg_pinv`)."""
    return [_bytes(args[0])] * 3


def _foreach_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """A partial result for each chunk of the longest tensor, float32
    (aten/src/ATen/native/cuda/ForeachReduceOp.cu, `foreach_tensor_norm_cuda`)."""
    tensors = args[0]
    chunks = max(-(-tensor.numel() // _CHUNK) for tensor in tensors)
    return [len(tensors) * chunks * 4]
