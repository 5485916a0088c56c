"""What is not modelled of a CUDA device's kernels, said of the runs that meet them."""

from __future__ import annotations

from collections.abc import Callable

from profiler.trace import Trace

_CUDNN = (
    "Of the workspace that cuDNN's attention takes while it runs, the query gradient's accumulator "
    "and the softmax's sums are counted; what its kernels need beside them only cuDNN knows."
)
_CUFFT = "The workspace of a Fourier transform, whose size only cuFFT knows, is not counted."
_CUSOLVER = (
    "The workspaces of decompositions, solves and inverses, whose sizes only cuSOLVER and MAGMA "
    "know, are not counted."
)
_SORTS = "The buffers of a sort are not counted."

#: By op. cuDNN: aten/src/ATen/native/cudnn/MHA.cpp (`get_workspace_size`); cuFFT:
#: aten/src/ATen/native/cuda/CuFFTPlanCache.h (`workspace_size`) and SpectralOps.cpp, which
#: allocates it; cuSOLVER: aten/src/ATen/native/cuda/linalg/CUDASolver.cpp (`*_buffersize`).
NOTES = {
    "aten._scaled_dot_product_cudnn_attention": _CUDNN,
    "aten._scaled_dot_product_cudnn_attention_backward": _CUDNN,
    "aten._fft_r2c": _CUFFT,
    "aten._fft_c2c": _CUFFT,
    "aten._fft_c2r": _CUFFT,
    "aten._linalg_solve_ex": _CUSOLVER,
    "aten._linalg_svd": _CUSOLVER,
    "aten._linalg_eigh": _CUSOLVER,
    "aten.linalg_eig": _CUSOLVER,
    "aten.linalg_inv_ex": _CUSOLVER,
    "aten.linalg_lu_factor_ex": _CUSOLVER,
    "aten.linalg_lu_solve": _CUSOLVER,
    "aten.linalg_cholesky_ex": _CUSOLVER,
    "aten.linalg_qr": _CUSOLVER,
    "aten.linalg_pinv": _CUSOLVER,
    "aten.linalg_householder_product": _CUSOLVER,
    "aten.sort": _SORTS,
    "aten.topk": _SORTS,
    "aten._unique2": _SORTS,
}


def noting(
    trace: Trace, on_op: Callable[[str, str], list[tuple[int, str]]]
) -> Callable[[str, str], list[tuple[int, str]]]:
    """`Rules.on_op`, that also adds to the trace what is not modelled of an op it meets."""

    def before(name: str, phase: str) -> list[tuple[int, str]]:
        note = NOTES.get(name)
        if note is not None and note not in trace.approximations:
            trace.approximations.append(note)
        return on_op(name, phase)

    return before
