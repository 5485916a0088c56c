"""The buffer in which a reduction split over thread blocks meets
(aten/src/ATen/native/cuda/Reduce.cuh).

`setReduceConfig` gives each output so many blocks that the card is filled and a thread has 16 to
256 numbers to add; where an output has more than one, their partial results go through memory
(`global_memory_size`, which for sums over rows holds a result of each thread: some 110 MB on an
A100), with a counter for each column of blocks (`semaphore_size`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from profiler.hardware.devices import Device

aten = torch.ops.aten

#: What is reduced by `gpu_reduce_kernel` with sums in float32 (cuda/ReduceSumProdKernel.cu,
#: ReduceMomentKernel.cu, ReduceNormKernel.cu): the op, and which argument names the dimensions.
OPS: dict[Any, int | None] = {
    aten.sum.default: None,
    aten.sum.dim_IntList: 1,
    aten.mean.default: None,
    aten.mean.dim: 1,
    aten.linalg_vector_norm.default: 2,
}

_THREADS, _WARP = 512, 32
_LEAST, _MOST = 16, 256  # min_values_per_thread, max_values_per_thread
#: `maxThreadsPerMultiProcessor` (CUDA C++ Programming Guide, "Technical Specifications per Compute
#: Capability"): 32 per resident warp.
_RESIDENT = {(7, 5): 1024, (8, 6): 1536, (8, 7): 1536, (8, 9): 1536, (12, 0): 1536, (12, 1): 1536}
_RESIDENT_ELSE = 2048


@dataclass(frozen=True)
class _Dimension:
    size: int
    stride: int


def sizes(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: Device) -> list[int]:
    """Bytes of the buffer and of its counters; none where each output has one block."""
    tensor = args[0]
    if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.element_size() > 4:
        return []
    position = OPS[op]
    dims = None
    if position is not None:
        dims = args[position] if len(args) > position else kwargs.get("dim")
    if isinstance(dims, int):
        dims = [dims]
    reduced = {dim % tensor.dim() for dim in dims} if dims else set(range(tensor.dim()))
    vector = 8 if op is not aten.linalg_vector_norm.default and tensor.element_size() == 2 else 4
    return global_buffers(tuple(tensor.shape), tensor.stride(), reduced, vector, device)


def global_buffers(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    reduced: set[int],
    vector: int,
    device: Device,
) -> list[int]:
    """`setReduceConfig` for a tensor of this shape, reduced over these dimensions.

    Args:
        vector: numbers that a thread loads at once along the input (`input_vec_size`).
    """
    inner = _coalesced(shape, strides, reduced)
    outer = _coalesced(shape, strides, set(range(len(shape))) - reduced)
    inputs = _product(inner)
    outputs = _product(outer)
    fastest = not outer or (bool(inner) and inner[0].stride < outer[0].stride)
    across, down = (inputs, outputs) if fastest else (outputs, inputs)
    first = (inner or outer or [_Dimension(1, 1)])[0] if fastest else outer[0]
    output_vector = 1
    if first.stride == 1:
        if fastest and across >= 128 and len(inner) == 1:
            across //= vector
        elif not fastest:
            output_vector = _output_vector(inner, outer)
            across //= output_vector

    threads = _THREADS // output_vector
    wide, high = (_power_of_2(min(size, threads)) for size in (across, down))
    width = min(wide, _WARP)
    height = min(high, threads // width)
    width = min(wide, threads // height)

    step_input = width if fastest else 1
    step_output = 1 if fastest else width
    if not -(-inputs // step_input) >= min(height * 16, _MOST):
        return []  # each warp has outputs of its own
    step_input *= height
    resident = _RESIDENT.get(device.compute_capability, _RESIDENT_ELSE)
    target = device.sm_count * (resident // (width * height))
    grid = -(-(outputs // output_vector) // step_output)
    values = -(-inputs // step_input)
    if values < _MOST or grid > target:
        return []
    blocks = max(min(-(-target // grid), -(-values // _LEAST)), -(-values // _MOST))
    if blocks <= 1:
        return []
    size = 4 * outputs * blocks
    if not fastest:
        size *= width * output_vector
    return [size, 4 * grid]


def _coalesced(
    shape: tuple[int, ...], strides: tuple[int, ...], chosen: set[int]
) -> list[_Dimension]:
    """The chosen dimensions from the fastest on, those that lie end to end as one
    (aten/src/ATen/TensorIterator.cpp, `reorder_dimensions`, `coalesce_dimensions`)."""
    found = sorted(
        (_Dimension(shape[dim], strides[dim]) for dim in chosen if shape[dim] != 1),
        key=lambda dimension: (dimension.stride, dimension.size),
    )
    joined: list[_Dimension] = []
    for dimension in found:
        last = joined[-1] if joined else None
        if last is not None and last.size * last.stride == dimension.stride:
            joined[-1] = _Dimension(last.size * dimension.size, last.stride)
        else:
            joined.append(dimension)
    return joined


def _output_vector(inner: list[_Dimension], outer: list[_Dimension]) -> int:
    """`get_output_vec_size`: four outputs at once, if all strides and the row allow it."""
    size = 4
    for number in (outer[0].size, *(item.stride for item in (*inner, *outer[1:]))):
        while number % size:
            size //= 2
    return size


def _product(dimensions: list[_Dimension]) -> int:
    product = 1
    for dimension in dimensions:
        product *= dimension.size
    return product


def _power_of_2(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)
