"""What the memory-efficient attention kernels take for themselves, in forward and backward.

Which kernel runs, and how much it needs, follows from its template's arguments. The tables list the
kernels in the order in which they are tried (PyTorch 2.13, aten/src/ATen/native/transformers/cuda/
mem_eff_attention/kernels/cutlassF.h and cutlassB.h, `dispatch_cutlass*`); the sizes are those of
mem_eff_attention/kernel_backward.h (`workspace_size`) and attention_backward.cu
(`_efficient_attention_backward`). `shared_memory` is `sizeof(SharedStorage)`, as the headers give
it when compiled with CUTLASS 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Bytes of shared memory that a block may opt in to, by compute capability
#: (`cudaDevAttrMaxSharedMemoryPerBlockOptin`; CUDA C++ Programming Guide, "Technical Specifications
#: per Compute Capability": maximum per thread block).
_SHARED_MEMORY = {
    (7, 0): 96 * 1024,
    (7, 5): 64 * 1024,
    (8, 0): 163 * 1024,
    (8, 6): 99 * 1024,
    (8, 7): 163 * 1024,
    (8, 9): 99 * 1024,
    (9, 0): 227 * 1024,
    (10, 0): 227 * 1024,
    (10, 3): 227 * 1024,
    (12, 0): 99 * 1024,
    (12, 1): 99 * 1024,
}

#: Any head size: the kernels' last row.
_ANY = 65536


@dataclass(frozen=True)
class BackwardKernel:
    """`AttentionBackwardKernel<..., rows, columns, max_head>`: blocks of queries by keys."""

    rows: int
    columns: int
    max_head: int
    shared_memory: int
    only: frozenset[tuple[int, int]] | None = None

    def accumulates_kv(self, half: bool) -> bool:
        """`kNeedsAccumGradK`: the key's gradient is summed in float32 memory, not in registers."""
        return half and self.max_head > self.rows

    @property
    def query_tile(self) -> int:
        """Bytes of a `GradQTempStorage`: a block's sum in float32 behind four counters."""
        return 16 + 4 * self.rows * self.columns


def _kernels(*rows: tuple[int, int, int, int]) -> tuple[BackwardKernel, ...]:
    return tuple(BackwardKernel(*row) for row in rows)


def _sm7x_half(small: int, large: int) -> tuple[tuple[int, int, int, int], ...]:
    return (
        (64, 64, 32, small),
        (64, 64, 64, small),
        (128, 64, 128, large),
        (64, 64, 128, small),
        (128, 64, _ANY, large),
        (64, 64, _ANY, small),
    )


_SM86_89 = frozenset({(8, 6), (8, 9)})
_SM80_HALF_TAIL = _kernels((64, 64, 128, 34048), (128, 64, _ANY, 60928), (64, 64, _ANY, 34048))
_SM80_K96 = BackwardKernel(128, 64, 96, 91648, _SM86_89)
_SM7X_FLOAT = tuple((64, 64, head, 37120) for head in (32, 64, 128, _ANY))

#: By architecture, dtype and whether attention drops. Variants for lengths that are multiples of
#: the block, or for unaligned inputs, need the same and are left out.
BACKWARD: dict[tuple[int, torch.dtype, bool], tuple[BackwardKernel, ...]] = {
    (80, torch.bfloat16, False): (
        *_kernels((64, 64, 32, 34560), (64, 64, 64, 42240)),
        _SM80_K96,
        *_kernels((128, 128, 128, 133632)),
        *_SM80_HALF_TAIL,
    ),
    (80, torch.bfloat16, True): (
        *_kernels((64, 64, 32, 39168), (64, 64, 64, 51456), (128, 128, 128, 152064)),
        *_SM80_HALF_TAIL,
    ),
    (80, torch.float16, False): (
        *_kernels((64, 64, 32, 40192), (64, 64, 64, 44288)),
        _SM80_K96,
        *_kernels((128, 128, 128, 154112)),
        *_SM80_HALF_TAIL,
    ),
    (80, torch.float16, True): (
        *_kernels((64, 64, 32, 40192), (64, 64, 64, 52480), (128, 128, 128, 162304)),
        *_SM80_HALF_TAIL,
    ),
    **{
        (80, torch.float32, drops): _kernels(
            (64, 64, 32, 53504),
            (64, 64, 64, 53504),
            (128, 64, 128, 121344),
            (64, 64, 128, 67840),
            (128, 64, _ANY, 121344),
            (64, 64, _ANY, 67840),
        )
        for drops in (False, True)
    },
    **{
        (architecture, dtype, drops): _kernels(*rows)
        for architecture, dtype, rows in (
            (75, torch.float16, _sm7x_half(27904, 54784)),
            (75, torch.float32, _SM7X_FLOAT),
            (70, torch.float16, _sm7x_half(25088, 50176)),
            (70, torch.float32, _SM7X_FLOAT),
        )
        for drops in (False, True)
    },
}

#: The forward's head sizes: up to here a block holds the whole output in registers
#: (`kKeepOutputInRF`: head size <= keys per block, 64 and 128 in cutlassF.h).
_FORWARD_IN_REGISTERS = 128


def backward_kernel(
    capability: tuple[int, int], dtype: torch.dtype, head: int, drops: bool
) -> BackwardKernel:
    """The first kernel whose head size is large enough and whose shared memory fits.

    Raises:
        ValueError: torch has none for this card and dtype.
    """
    architecture = 80 if capability >= (8, 0) else 75 if capability >= (7, 5) else 70
    shared = _SHARED_MEMORY.get(capability, min(_SHARED_MEMORY.values()))
    for kernel in BACKWARD.get((architecture, dtype, drops), ()):
        if kernel.only is not None and capability not in kernel.only:
            continue
        if kernel.max_head >= head and kernel.shared_memory <= shared:
            return kernel
    raise ValueError(f"no memory-efficient backward for {dtype} on compute capability {capability}")


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def backward_workspace(
    kernel: BackwardKernel,
    half: bool,
    batch: int,
    heads: int,
    queries: int,
    keys: int,
    head: int,
    value_head: int,
) -> int:
    """`Params::workspace_size()` in bytes: for each head the query's gradient in float32 by tiles,
    and where they do not fit in registers, tiles of the key's and the value's."""
    accumulates = kernel.accumulates_kv(half)
    splits = -(-keys // kernel.columns)
    if batch * heads >= 256 and keys <= 2 * kernel.columns:
        splits = 1
    if accumulates:
        splits = min(splits, 200 // (batch * heads))
    splits = max(splits, 1)
    elements = 0
    if accumulates:
        elements += splits * kernel.columns * _up(head, kernel.rows)
        elements += splits * kernel.columns * _up(value_head, kernel.rows)
    tiles = -(-queries // kernel.rows) * -(-head // kernel.columns)
    elements += tiles * kernel.query_tile // 4
    return batch * heads * _up(elements, 4) * 4


def backward_sizes(
    capability: tuple[int, int],
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
) -> list[int]:
    """What `_scaled_dot_product_efficient_attention_backward` holds at its fullest, in bytes.

    Tensors are (batch, heads, length, head size). The kernels make delta, the products' sum over
    the head, themselves; in float32 it is made before, of whole temporaries.
    """
    batch, heads, queries, head = query.shape
    kv_heads, keys, value_head = key.size(1), key.size(2), value.size(3)
    half = query.dtype != torch.float32
    kernel = backward_kernel(capability, query.dtype, max(head, value_head), dropout > 0)
    delta = batch * heads * queries * 4
    copied: list[int] = []
    if not grad.transpose(1, 2).is_contiguous():
        copied.append(grad.numel() * grad.element_size())
    if kv_heads != heads:  # one gradient per query head, then summed (torch 2.14)
        copied += [batch * heads * keys * size * key.element_size() for size in (head, value_head)]
    workspace = backward_workspace(kernel, half, batch, heads, queries, keys, head, value_head)
    inside = [delta, workspace]
    in_registers = not kernel.accumulates_kv(half)
    if not half or (capability < (7, 5) and not in_registers):
        product = batch * heads * queries * value_head * 4
        made = [product, delta, delta] if not half else [product] * 3 + [delta] * 2
        inside = max(inside, made, key=sum)
    return copied + inside


def forward_sizes(query: torch.Tensor, value: torch.Tensor) -> list[int]:
    """The output in float32, where registers cannot hold it (`kNeedsOutputAccumulatorBuffer`)."""
    head = max(query.size(-1), value.size(-1))
    if query.dtype == torch.float32 or head <= _FORWARD_IN_REGISTERS:
        return []
    batch, heads, queries, _ = query.shape
    return [batch * heads * queries * value.size(-1) * 4]
