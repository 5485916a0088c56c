"""Which kernel `scaled_dot_product_attention` takes on a CUDA device, and running its shapes.

Ported from aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (`priority_order`, `can_use_*`, and
their checks in transformers/sdp_utils_cpp.h) and attention.cpp of PyTorch 2.13, with what 2.14
changed. The chosen kernel's own op is called on fake tensors: what it returns and saves for its
backward is torch's own declaration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from profiler.bench.cuda import versions
from profiler.errors import UnsupportedError

aten = torch.ops.aten

#: cuDNN goes first from this version on (`check_prefer_cudnn_attention`).
_CUDNN_FIRST = 91500
#: From this version on, and with torch 2.14 (`kCuDNNFrontendSupportsD256`), cuDNN takes head sizes
#: to 256 on sm_90 and sm_100 (`check_cudnn_tensor_shapes`).
_CUDNN_HEAD_256 = 92200
#: cuDNN's batch and heads (`max_cudnn_dim_size`).
_CUDNN_MOST = 65535

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Request:
    """One call: what the choice depends on."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    causal: bool
    gqa: bool

    @property
    def requires_grad(self) -> bool:
        tensors = (self.query, self.key, self.value)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def heads_fit(self, *, groups: bool, same_kv: bool = True) -> bool:
        """`check_batch_size_and_num_heads_dense<groups, same_kv, groups from 2.14 on>`."""
        query, key, value = (item.size(-3) for item in (self.query, self.key, self.value))
        if len({item.size(0) for item in (self.query, self.key, self.value)}) > 1:
            return False
        if self.gqa and groups:
            return (key == value or not same_kv) and query % key == 0 and query % value == 0
        if groups and versions.TORCH >= (2, 14) and key == value == 1:  # `supports_mqa`
            return True
        return query == key == value


def priority(capability: tuple[int, int]) -> tuple[str, ...]:
    """`priority_order`: cuDNN first on sm_90 and sm_100."""
    if versions.cudnn_version() > _CUDNN_FIRST and capability[0] in (9, 10):
        return ("cudnn", "flash", "efficient", "math")
    return ("flash", "efficient", "math", "cudnn")


def can_use_flash(request: Request, capability: tuple[int, int]) -> bool:
    """`can_use_flash_attention`: no mask, 16 bit, sm_80 and later, head size to 256."""
    query = request.query
    head = query.size(-1)
    if request.mask is not None or not (8, 0) <= capability <= (12, 1):
        return False
    if not (head == request.key.size(-1) == request.value.size(-1) and head <= 256):
        return False
    narrow = (8, 6) <= capability <= (8, 9) or (12, 0) <= capability <= (12, 1)
    trains = head <= 192 or (request.dropout == 0 and head > 224)
    if request.requires_grad and narrow and not trains:
        return False
    if request.causal and query.size(-2) != request.key.size(-2):
        return False
    return query.dtype in _HALF and _dense(request) and request.heads_fit(groups=True)


def can_use_efficient(request: Request, capability: tuple[int, int]) -> bool:
    """`can_use_mem_efficient_attention`: any mask, aligned head size and, before torch 2.14, no
    grouped heads."""
    query = request.query
    head = query.size(-1)
    if not (5, 0) <= capability <= (12, 1):
        return False
    if not request.heads_fit(groups=versions.efficient_groups_heads()):
        return False
    if head != request.key.size(-1) or not _dense(request, ignore_singleton=False):
        return False
    alignment = gemm_alignment(query.dtype, capability)
    if head % alignment or request.value.size(-1) % alignment:
        return False
    if capability >= (8, 0):  # `check_data_ptr_alignment_mem_efficient`
        tensors = (query, request.key, request.value)
        if any(tensor.storage_offset() % alignment for tensor in tensors):
            return False
    dtypes = (torch.float16, torch.float32)
    return query.dtype in (dtypes if capability < (8, 0) else (*dtypes, torch.bfloat16))


def can_use_cudnn(request: Request, capability: tuple[int, int]) -> bool:
    """`can_use_cudnn_attention`: 16 bit, sm_80 and later, head size to 128 in multiples of 8."""
    query = request.query
    if not (8, 0) <= capability <= (12, 1) or query.dtype not in _HALF or not _dense(request):
        return False
    if request.dropout * 16 != math.floor(request.dropout * 16):
        return False
    if not _mask_fits(request) or not request.heads_fit(groups=True, same_kv=False):
        return False
    if max(query.size(0), query.size(1)) > _CUDNN_MOST:
        return False
    heads = (query.size(-1), request.value.size(-1))
    if not _cudnn_head_sizes(heads, capability, request.requires_grad):
        return False
    return request.key.size(-2) != 1 and not (request.dropout and query.size(-2) == 1)


def _cudnn_head_sizes(heads: tuple[int, int], capability: tuple[int, int], trains: bool) -> bool:
    """`check_cudnn_tensor_shapes`, and `check_cudnn_d256_bprop_head_dim` of torch 2.14."""
    if any(head % 8 for head in heads):
        return False
    hopper = capability == (9, 0) or capability[0] == 10
    cudnn = versions.cudnn_version()
    if hopper and versions.TORCH >= (2, 14) and cudnn > _CUDNN_HEAD_256 and capability != (10, 7):
        if trains:
            return max(heads) <= 128 or heads in ((192, 128), (256, 256))
        return max(heads) <= 256
    return max(heads) <= 128 or (hopper and heads == (192, 128))


def _mask_fits(request: Request) -> bool:
    """`check_attn_mask_shape`: no gradient; each dimension the attention's own, or 1."""
    mask = request.mask
    if mask is None:
        return True
    if mask.requires_grad or mask.dim() not in (2, 4):
        return False
    query = request.query
    full = (query.size(0), query.size(1), query.size(2), request.key.size(2))
    pairs = zip(mask.shape, full[-mask.dim() :], strict=True)
    return all(size in (1, whole) for size, whole in pairs)


def gemm_alignment(dtype: torch.dtype, capability: tuple[int, int]) -> int:
    """`minimum_gemm_alignment`, in elements."""
    half = dtype in _HALF
    tensor_cores = capability >= (8, 0) or (capability >= (7, 0) and half)
    alignment = 4 if capability >= (8, 0) else 1
    return max(alignment, 128 // (16 if half else 32)) if tensor_cores else alignment


def _dense(request: Request, *, ignore_singleton: bool = True) -> bool:
    """Four dimensions, nothing empty, last stride 1 (`check_last_dim_stride_equals_1_dense`)."""
    tensors = (request.query, request.key, request.value)
    if any(tensor.dim() != 4 for tensor in tensors):
        return False
    strided = any(tensor.stride(-1) != 1 for tensor in tensors)
    if strided and not (ignore_singleton and request.query.size(-1) == 1):
        return False
    if request.mask is not None and request.mask.stride(-1) != 1:
        return False
    return request.query.size(-2) > 0 and request.key.size(-2) > 0


def select(request: Request, capability: tuple[int, int], forced: str = "auto") -> str:
    """`select_sdp_backend`, or the forced kernel if it can be used.

    Raises:
        UnsupportedError: the forced kernel cannot run this call on this card.
    """
    usable: dict[str, Callable[[Request, tuple[int, int]], bool]] = {
        "flash": can_use_flash,
        "efficient": can_use_efficient,
        "cudnn": can_use_cudnn,
        "math": lambda request, capability: True,
    }
    if forced != "auto":
        if usable[forced](request, capability):
            return forced
        raise UnsupportedError(
            f"--sdpa-backend {forced} cannot run this attention on compute capability "
            f"{capability[0]}.{capability[1]} ({str(request.query.dtype).removeprefix('torch.')}, "
            f"mask {'given' if request.mask is not None else 'none'}, head size "
            f"{request.query.size(-1)})"
        )
    for name in priority(capability):
        if usable[name](request, capability):
            return name
    raise AssertionError("math runs everything")


def scaled_dot_product_attention(
    capability: tuple[int, int], forced: str
) -> Callable[..., torch.Tensor]:
    """A function with torch's signature that does as the card would (attention.cpp)."""

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        grouped = enable_gqa and key.size(-3) != query.size(-3)
        if forced == "efficient" and grouped and not versions.efficient_groups_heads():
            # Forcing this kernel means expanding grouped heads first: it has no other way.
            key, value = (
                item.repeat_interleave(query.size(-3) // item.size(-3), -3) for item in (key, value)
            )
        request = Request(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
        backend = select(request, capability, forced)
        if attn_mask is not None and attn_mask.dtype == torch.bool and backend != "math":
            attn_mask = _float_mask(attn_mask, query.dtype)
        if backend == "flash":
            return _flash(query, key, value, dropout_p, is_causal, scale)
        if backend == "efficient":
            if attn_mask is not None:
                attn_mask = _padded_mask(attn_mask, query, key)
            out = aten._scaled_dot_product_efficient_attention(
                query,
                key,
                value,
                attn_mask,
                request.requires_grad,
                dropout_p,
                is_causal,
                scale=scale,
            )
            return _first(out)
        if backend == "cudnn":
            out = aten._scaled_dot_product_cudnn_attention(
                query,
                key,
                value,
                attn_mask,
                request.requires_grad,
                dropout_p,
                is_causal,
                False,
                scale=scale,
            )
            return _first(out)
        out = aten._scaled_dot_product_attention_math(
            query,
            key,
            value,
            attn_mask,
            dropout_p,
            is_causal,
            None,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        return _first(out)

    return attend


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """Head sizes are padded to a multiple of 8 and the result is cut (`pad_last_dim`)."""
    head = query.size(-1)
    if head % 8:
        scale = scale if scale is not None else 1 / math.sqrt(head)
        width = 8 - head % 8
        query, key, value = (
            torch.nn.functional.pad(tensor, (0, width)) for tensor in (query, key, value)
        )
    out = aten._scaled_dot_product_flash_attention(
        query, key, value, dropout, causal, False, scale=scale
    )
    result = _first(out)
    return result.narrow(-1, 0, head) if head % 8 else result


def _float_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`convert_boolean_attn_mask`: a mask of the query's dtype beside the boolean one."""
    new = torch.zeros_like(mask, dtype=dtype)
    new.masked_fill_(mask.logical_not(), -math.inf)
    return new


def _padded_mask(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """`preprocess_mask`: the last dimension in steps of 16 elements (`pad_bias<16>`), then cut."""
    width = key.size(-2)
    if mask.size(-1) != 1 and mask.size(-1) % 16:
        mask = torch.nn.functional.pad(mask, (0, 16 - mask.size(-1) % 16)).narrow(-1, 0, width)
    return mask.expand(query.size(0), query.size(1), query.size(2), width)


def _first(out: Any) -> torch.Tensor:
    result = out[0]
    assert isinstance(result, torch.Tensor)
    return result
