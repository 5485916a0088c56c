"""Workspaces that cuBLAS takes from the allocator and keeps.

aten/src/ATen/cuda/CublasHandlePool.cpp.

One for each handle, and each thread has a handle of its own: the one that runs the forward and the
optimizer, and autograd's. It comes with the handle, when the first product's result is there
already. cuBLASLt shares it (`getCUDABlasLtWorkspace`, unified by default; in torch 2.10 it had a
MiB of its own, from a thread's first product with a bias on). From torch 2.15 on nothing is kept:
each product has a workspace while it runs (`temporaries.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from profiler.bench.cuda import versions

#: Ops that ask for a cuBLAS handle (aten/src/ATen/native/cuda/Blas.cpp and, for products with a
#: vector, cuda/CUDABlas.cpp). bitsandbytes' fused 4-bit product has none of its own; where it falls
#: back it is `linear`.
PRODUCTS = frozenset(
    {
        "aten.mm",
        "aten.addmm",
        "aten.bmm",
        "aten.baddbmm",
        "aten.mv",
        "aten.addmv",
        "aten.dot",
        "aten.vdot",
        "bitsandbytes.gemm_4bit",
    }
)


def cublas_workspace(capability: tuple[int, int]) -> int:
    """`parseChosenWorkspaceSize`: 32 MiB on sm_90, sm_100 and sm_120, else :4096:2:16:8 (KiB).

    (The sources said sm_90 alone for long; the 2.13.0 wheel's code compares with 9, 10 and 12.)
    """
    if capability[0] in (9, 10, 11, 12):
        return 4096 * 8 * 1024
    return 4096 * 2 * 1024 + 16 * 8 * 1024


def on_op(capability: tuple[int, int]) -> Callable[[str, str], list[tuple[int, str]]]:
    """`Rules.on_op`: a workspace at the first product of each thread."""
    size = cublas_workspace(capability)
    keeps = versions.keeps_cublas_workspaces()
    threads: set[bool] = set()

    def before(name: str, phase: str) -> list[tuple[int, str]]:
        if name not in PRODUCTS or not keeps:
            return []
        autograd = phase == "backward"
        if autograd in threads:
            return []
        threads.add(autograd)
        return [(size, "cublas_workspace")]

    return before
