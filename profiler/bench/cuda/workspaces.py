"""Workspaces that cuBLAS takes from the allocator and keeps.

aten/src/ATen/cuda/CublasHandlePool.cpp.

One for each handle, and each thread has a handle of its own: the one that runs the forward and the
optimizer, and autograd's. cuBLASLt shares it (`getCUDABlasLtWorkspace`, unified by default).
"""

from __future__ import annotations

from collections.abc import Callable

_PRODUCTS = frozenset(
    {"aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm", "bitsandbytes.gemm_4bit"}
)


def cublas_workspace(capability: tuple[int, int]) -> int:
    """`getChosenWorkspaceSize`: 32 MiB on sm_90, else :4096:2:16:8 (in KiB)."""
    if capability[0] == 9:
        return 4096 * 8 * 1024
    return 4096 * 2 * 1024 + 16 * 8 * 1024


def on_op(capability: tuple[int, int]) -> Callable[[str, str], list[tuple[int, str]]]:
    """`Rules.on_op`: a workspace before the first product of each thread."""
    size = cublas_workspace(capability)
    threads: set[bool] = set()

    def before(name: str, phase: str) -> list[tuple[int, str]]:
        if name not in _PRODUCTS:
            return []
        autograd = phase == "backward"
        if autograd in threads:
            return []
        threads.add(autograd)
        return [(size, "cublas_workspace")]

    return before
