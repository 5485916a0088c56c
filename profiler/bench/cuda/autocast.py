"""Autocast as on a CUDA device, for tensors that are on the CPU.

Which ops autocast touches, and how, differs by device: CUDA runs norms, softmax, powers and sums in
float32 where a CPU leaves them as they come. The tables are the macros of
aten/src/ATen/autocast_mode.h (PyTorch 2.13) that `TORCH_LIBRARY_IMPL(aten, Autocast)` registers in
aten/src/ATen/autocast_mode.cpp. They are put in the place of the CPU's for the run: at the
dispatcher, where a checkpoint's recomputation passes as well.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

aten = torch.ops.aten


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: AT_FORALL_LOWER_PRECISION_FP: inputs are cast to autocast's type. `_thnn_fused_*` and `cudnn_*`
#: are ops of CUDA tensors alone.
LOWER_PRECISION = _names(
    "_convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d "
    "conv_transpose2d.input conv_transpose3d.input convolution prelu addmm addmv addr matmul "
    "einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot "
    "_thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell "
    "_scaled_dot_product_flash_attention scaled_dot_product_attention cudnn_convolution "
    "cudnn_convolution_transpose"
)

#: AT_FORALL_FP32: inputs are cast to float32.
FLOAT32 = _names(
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan "
    "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm "
    "group_norm frobenius_norm.dim nuclear_norm nuclear_norm.dim cosine_similarity "
    "poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div "
    "l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss "
    "soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist "
    "pdist cdist renorm logsumexp upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d "
    "_upsample_nearest_exact2d upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d "
    "upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d upsample_bicubic2d "
    "_upsample_bicubic2d_aa"
)

#: AT_FORALL_FP32_SET_OPT_DTYPE: the result is asked for in float32, unless a type is given.
FLOAT32_RESULT = _names(
    "prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm "
    "linalg_matrix_norm linalg_matrix_norm.str_ord sum sum.dim_IntList"
)

#: AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE: as the overload that takes a type, with float32.
FLOAT32_APPENDED = {
    "norm.Scalar": "norm.ScalarOpt_dtype",
    "norm.ScalarOpt_dim": "norm.ScalarOpt_dim_dtype",
}

#: AT_FORALL_PROMOTE: inputs are cast to the widest type among them.
PROMOTE = _names(
    "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add"
)

#: `binary_cross_entropy_banned`.
REFUSED = ("binary_cross_entropy",)

_KEY = "AutocastCPU"
#: Softmax of a half tensor into float32 is one kernel (aten/src/ATen/native/SoftMax.cpp).
_FUSED = {"softmax.int": aten._softmax.default, "log_softmax.int": aten._log_softmax.default}


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` as autocast would cast it to `dtype`: 64-bit floats and integers are left alone."""
    if tensor.is_floating_point() and tensor.dtype not in (dtype, torch.float64):
        return tensor.to(dtype)
    return tensor


def active() -> torch.dtype | None:
    """The type of the autocast that is on, None outside one."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


class _Casts:
    """Casts as `cached_cast`: those of float32 weights are kept until the outermost autocast ends
    (aten/src/ATen/autocast_mode.cpp)."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, torch.Tensor]] = {}

    def clear(self) -> None:
        self._kept.clear()

    def __call__(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, (list, tuple)):
            return [self(item, dtype) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        if not value.is_floating_point() or value.dtype in (dtype, torch.float64):
            return value
        weight = (
            value.dtype == torch.float32
            and dtype == active()
            and value.requires_grad
            and value.is_leaf
            and not value._is_view()
            and torch.is_autocast_cache_enabled()
        )
        if not weight:
            return value.to(dtype)
        known = self._kept.get(id(value))
        if known is None or known[0]() is not value:
            known = self._kept[id(value)] = (weakref.ref(value), value.to(dtype))
        return known[1]


_Kernel = Callable[..., Any]


def _cast_all(op: Any, casts: _Casts, dtype: Callable[[Any], torch.dtype]) -> _Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        to = dtype((args, kwargs))
        args = tuple(casts(value, to) for value in args)
        kwargs = {name: casts(value, to) for name, value in kwargs.items()}
        with suspended():
            return op(*args, **kwargs)

    return kernel


def _float32_result(name: str, op: Any) -> _Kernel:
    position = [argument.name for argument in op._schema.arguments].index("dtype")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        first = args[0]
        given = kwargs.get("dtype") if len(args) <= position else args[position]
        eligible = first.is_floating_point() and first.dtype != torch.float64
        if given is None and eligible:
            args, given = args[:position], torch.float32
            kwargs = {**kwargs, "dtype": given}
        with suspended():
            if name in _FUSED and first.dtype == torch.float16 and given == torch.float32:
                return _FUSED[name](first, args[1], True)
            return op(*args, **kwargs)

    return kernel


def _appended(op: Any) -> _Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        first = args[0]
        eligible = first.is_floating_point() and first.dtype != torch.float64
        with suspended():
            return op(*args, **kwargs, dtype=torch.float32 if eligible else first.dtype)

    return kernel


def _refused(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("binary_cross_entropy is unsafe to autocast; use its _with_logits")


def _widest(values: Any) -> torch.dtype:
    """`promote_type`: float32 if any tensor has it, else autocast's type."""
    tensors = [item for item in torch.utils._pytree.tree_leaves(values) if _is_float(item)]
    if any(tensor.dtype == torch.float32 for tensor in tensors):
        return torch.float32
    return _lower(values)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _lower(values: Any) -> torch.dtype:
    return torch.get_autocast_dtype("cpu")


def suspended() -> Any:
    """A context in which autocast is off, as it is inside an op that autocast has cast for."""
    return torch._C._ExcludeDispatchKeyGuard(
        torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    )


def _op(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _kernels(casts: _Casts) -> dict[str, _Kernel]:
    kernels: dict[str, _Kernel] = {}
    for name in LOWER_PRECISION:
        kernels[name] = _cast_all(_op(name), casts, _lower)
    for name in FLOAT32:
        kernels[name] = _cast_all(_op(name), casts, lambda values: torch.float32)
    for name in PROMOTE:
        kernels[name] = _cast_all(_op(name), casts, _widest)
    for name in FLOAT32_RESULT:
        kernels[name] = _float32_result(name, _op(name))
    for name, typed in FLOAT32_APPENDED.items():
        kernels[name] = _appended(_op(typed))
    for name in REFUSED:
        kernels[name] = _refused
    return kernels


def registered(key: str) -> set[str]:
    """The ops of `aten` that have a kernel of their own at a dispatch key, as torch was built."""
    names = torch._C._dispatch_get_all_op_names()
    return {
        name.removeprefix("aten::")
        for name in names
        if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    }


@contextmanager
def installed() -> Iterator[None]:
    """Let `torch.autocast("cpu")` cast as a CUDA device's does, while the context lasts.

    Two questions are answered as there, too: whether autocast is on (asked without a device, it
    means CUDA's: peft's 4-bit layers do), and whether it takes float32 (on CUDA any type is taken).
    """
    casts = _Casts()
    amp: Any = torch.amp.autocast_mode.autocast
    asked: Any = torch.is_autocast_enabled
    cleared: Any = torch.clear_autocast_cache
    made = amp.__init__

    def is_autocast_enabled(device_type: str | None = None) -> bool:
        return bool(asked("cpu" if device_type is None else device_type))

    def clear_autocast_cache() -> None:
        casts.clear()
        cleared()

    def init(
        self: Any,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        float32 = device_type == "cpu" and dtype == torch.float32
        made(self, device_type, dtype, enabled and not float32, cache_enabled)
        self._enabled = self._enabled or (enabled and float32)

    kernels = _kernels(casts)
    # One that is torn down gives back what was there before.
    library = torch.library.Library("aten", "IMPL")
    torch_module: Any = torch
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that kernels are replaced is the purpose
            for name in registered(_KEY) - kernels.keys():
                library.impl(name, torch.library.fallthrough_kernel, _KEY)
            for name, kernel in kernels.items():
                library.impl(name, kernel, _KEY)
        torch_module.is_autocast_enabled = is_autocast_enabled
        torch_module.clear_autocast_cache = clear_autocast_cache
        amp.__init__ = init
        yield
    finally:
        library._destroy()
        torch_module.is_autocast_enabled = asked
        torch_module.clear_autocast_cache = cleared
        amp.__init__ = made
        casts.clear()
