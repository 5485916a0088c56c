"""Which build's rules hold: those of the CUDA wheel of the torch that is installed."""

from __future__ import annotations

import torch

#: (major, minor) of the installed torch.
TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])

#: cuDNN by torch's version, as the CUDA 13.0 wheels ask for it (their `nvidia-cudnn-cu13`); a
#: newer torch is taken to have the last.
_CUDNN = {(2, 13): 92000, (2, 14): 92400, (2, 15): 92600}


def cudnn_version() -> int:
    """As `cudnnGetVersion` counts: 10000 times the major, 100 times the minor version."""
    known = [cudnn for version, cudnn in _CUDNN.items() if version <= TORCH]
    return known[-1] if known else _CUDNN[2, 13]


def efficient_groups_heads() -> bool:
    """Whether the memory-efficient kernels take grouped heads, from torch 2.14 on: `q_heads_per_kv`
    in mem_eff_attention/kernel_forward.h and kernel_backward.h, `supports_gqa` in sdp_utils.cpp's
    `can_use_mem_efficient_attention`."""
    return TORCH >= (2, 14)


def keeps_cublas_workspaces() -> bool:
    """Whether a cuBLAS workspace stays with its handle. From torch 2.15 on each product allocates
    its own and frees it (aten/src/ATen/cuda/CublasHandlePool.cpp,
    `isCUDABlasWorkspaceCachingEnabled`, `getCurrentCUDABlasHandleWithWorkspace`)."""
    return TORCH < (2, 15)
