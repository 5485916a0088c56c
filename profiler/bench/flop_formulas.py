"""FLOPs of an op from its arguments: torch's formulas, and those that torch does not have.

What is counted, with a multiply-add as two: contractions (matrix products, convolutions,
attention's two products and their gradients, recurrent layers), Fourier transforms and matrix
decompositions. Element-wise ops, reductions, normalisations, softmax, optimizer updates and the
unpacking of quantised weights count none, as in `torch.utils.flop_counter`.

Attention is counted as its kernel computes it, by the whole square of queries and keys; half of a
causal square is skipped by a fused kernel and is counted nevertheless, as torch and Chowdhery et
al. (PaLM, arXiv 2204.02311, appendix B) count it, so that kernels are comparable. A forward is
two products of 2 B H S_q S_k d each. A fused backward (flash, memory-efficient, cuDNN, the
CPU's) is five: it makes the scores again. An unfused one (math, eager) is four products, as ops of
their own: what softmax gave was kept.

torch/utils/flop_counter.py; products of packed weights: bitsandbytes/_ops.py; the flash-attention
package: flash_attn/flash_attn_interface.py of 2.8; transforms:
Frigo and Johnson, "The design and implementation of FFTW3", Proc. IEEE 93(2), 2005
(5 N log2 N); decompositions: Blackford and Dongarra, "Installation guide for LAPACK", LAPACK
working note 41, appendix C, leading terms; singular values and eigenvectors: Golub and Van Loan,
"Matrix computations", 4th edition, sections 8.3 and 8.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.flop_counter import flop_registry

Formula = Callable[..., int]


def formula(packet: Any) -> Formula | None:
    """The FLOPs of an op, as `f(*args, **kwargs, out_val=out)`; None counts none.

    Args:
        packet: an overload packet, such as `torch.ops.aten.mm`.
    """
    own = _FORMULAS.get(str(packet))
    return own if own is not None else flop_registry.get(packet)


def _product(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """(..., M, K) by (..., K, N), or by a vector (K,). Each entry of a sparse `a` meets a row of
    `b`; torch's formula takes it for dense, and complex numbers for real ones."""
    entries = a._values().numel() if a.is_sparse else a.numel()
    each = 8 if a.is_complex() else 2
    return int(each * entries * (b.shape[-1] if b.dim() > 1 else 1))


def _added_product(total: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return _product(a, b)


def _products(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """Two lists of matrices."""
    return sum(_product(one, other) for one, other in zip(a, b, strict=True))


def _outer(total: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return int(2 * a.numel() * b.numel())


def _grouped_product(a: Any, b: Any, *args: Any, out_val: Any, **kwargs: Any) -> int:
    """Experts' products: rows (T, K) by (E, K, N); of a gradient, (M, T) by (T, N) to (E, M, N)."""
    if a.dim() == 2 and b.dim() == 2:
        return int(2 * a.numel() * b.shape[-1])
    return int(2 * out_val.numel() * a.shape[-1])


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """(B, heads, length, head size); grouped key and value heads serve all of the query's."""
    pairs = query.numel() // query.shape[-1] * key.shape[-2]
    return _two_products(pairs, query, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *a: Any, **k: Any) -> int:
    pairs = query.numel() // query.shape[-1] * key.shape[-2]
    return _five_products(pairs, query, value)


def _two_products(pairs: int, query: Any, value: Any) -> int:
    """Scores, and what they weigh, of so many pairs of a query and a key."""
    return int(2 * pairs * (query.shape[-1] + value.shape[-1]))


def _five_products(pairs: int, query: Any, value: Any) -> int:
    """Scores and gradients of query and key over the query's head size, two over the value's."""
    return int(2 * pairs * (3 * query.shape[-1] + 2 * value.shape[-1]))


def _flash(starts: int) -> Formula:
    """Of flash-attention's own layout; before torch 2.14 torch's formula takes its heads for its
    length.

    Args:
        starts: where the starts of joined sequences stand in the op's arguments.
    """

    def forward(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return _two_products(_flash_pairs(query, key, args[starts - 3 :]), query, value)

    return forward


def _flash_backward(starts: int) -> Formula:
    def backward(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return _five_products(_flash_pairs(query, key, args[starts - 4 :]), query, value)

    return backward


def _flash_pairs(query: Any, key: Any, joined: Any) -> int:
    """(B, length, heads, head size), or sequences joined into (tokens, heads, head size), whose
    starts are known of real tensors; fake ones are taken to be of the greatest length each."""
    if query.dim() == 4:
        return int(query.shape[0] * query.shape[2] * query.shape[1] * key.shape[1])
    starts_query, starts_key, most_query, most_key = joined[:4]
    if isinstance(starts_query, FakeTensor):
        pairs = (starts_query.shape[0] - 1) * most_query * most_key
    else:
        pairs = (starts_query.diff().long() * starts_key.diff().long()).sum()
    return int(query.shape[1] * int(pairs))


def _convolution_backward(
    grad: Any, input: Any, weight: Any, *rest: Any, out_val: Any, **kwargs: Any
) -> int:
    """Each gradient takes the forward's multiply-adds; torch's formula has too many of grouped
    convolutions' weights."""
    transposed, mask = rest[4], rest[7]
    places = (input if transposed else grad).shape
    per_place = weight.numel() * places[0] * math.prod(places[2:])
    return 2 * per_place * (bool(mask[0]) + bool(mask[1]))


def _packed_product(a: Any, b: Any, shape: Any, *args: Any, **kwargs: Any) -> int:
    """4-bit `b` stands for a weight of `shape` (N, K), which `a` (..., K) is multiplied by."""
    return int(2 * a.numel() * shape[0])


def _int8_product(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """`a` (..., K) by `b` (N, K), both int8."""
    return int(2 * a.numel() * b.shape[0])


def _int8_mixed_product(a: Any, ca: Any, cb: Any, *args: Any, **kwargs: Any) -> int:
    return _int8_product(ca, cb)


def _recurrent(input: Any, *args: Any, **kwargs: Any) -> int:
    """oneDNN's layer: input (length, batch, features), weights (gates x hidden, features) of the
    input and (gates x hidden, hidden) of the state."""
    return int(2 * input.shape[0] * input.shape[1] * (args[0].numel() + args[1].numel()))


def _recurrent_layers(input: Any, weights: Any, *args: Any, **kwargs: Any) -> int:
    """cuDNN's: all layers' weights as a list, biases among them."""
    products = sum(weight.numel() for weight in weights if weight.dim() == 2)
    return int(2 * input.shape[0] * input.shape[1] * products)


def _twice(forward: Formula) -> Formula:
    """A backward that takes both gradients, of inputs and of weights."""

    def backward(*args: Any, **kwargs: Any) -> int:
        return 2 * forward(*args, **kwargs)

    return backward


def _complex_transform(a: Any, dims: Any, *args: Any, **kwargs: Any) -> int:
    return _transform(5, a, dims)


def _real_transform(a: Any, dims: Any, *args: Any, **kwargs: Any) -> int:
    return _transform(2.5, a, dims)


def _transform_to_real(a: Any, dims: Any, *args: Any, out_val: Any, **kwargs: Any) -> int:
    return _transform(2.5, out_val, dims)


def _transform(factor: float, a: Any, dims: Any) -> int:
    points = math.prod(a.shape[dim] for dim in dims)
    return round(factor * a.numel() * math.log2(points)) if points else 0


def _batch(a: Any) -> int:
    return math.prod(a.shape[:-2])


def _factorise(a: Any, *args: Any, **kwargs: Any) -> int:
    """LU of an n x n matrix."""
    return round(_batch(a) * 2 / 3 * a.shape[-1] ** 3)


def _solve(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return _factorise(a) + 2 * b.numel() * a.shape[-1]


def _lu_solve(lu: Any, pivots: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return int(2 * b.numel() * lu.shape[-1])


def _triangular_solve(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return int(b.numel() * a.shape[-1])


def _invert(a: Any, *args: Any, **kwargs: Any) -> int:
    return int(2 * _batch(a) * a.shape[-1] ** 3)


def _cholesky(a: Any, *args: Any, **kwargs: Any) -> int:
    return round(_batch(a) / 3 * a.shape[-1] ** 3)


def _cholesky_solve(b: Any, factor: Any, *args: Any, **kwargs: Any) -> int:
    return int(2 * b.numel() * factor.shape[-1])


def _qr(a: Any, mode: str = "reduced", **kwargs: Any) -> int:
    less, more = sorted(a.shape[-2:])
    parts = 1 if mode == "r" else 2  # R alone, or Q put together from its reflectors, too
    return round(_batch(a) * parts * 2 * less**2 * (more - less / 3))


def _singular_values(a: Any, *args: Any, **kwargs: Any) -> int:
    less, more = sorted(a.shape[-2:])
    return int(_batch(a) * (14 * more * less**2 + 8 * less**3))


def _pseudo_inverse(a: Any, *args: Any, **kwargs: Any) -> int:
    """Singular values, and the product of both factors."""
    return int(_singular_values(a) + 2 * a.numel() * min(a.shape[-2:]))


def _eigenvectors(a: Any, *args: Any, **kwargs: Any) -> int:
    """Of a symmetric matrix."""
    return int(9 * _batch(a) * a.shape[-1] ** 3)


#: By the op's name, for a version of torch or bitsandbytes may not have it.
_FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(
        ("aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten._int_mm"), _product
    ),
    **dict.fromkeys(
        (
            "aten.addmm",
            "aten.baddbmm",
            "aten.addmm_",
            "aten.baddbmm_",
            "aten.addbmm",
            "aten.addbmm_",
            "aten.addmv",
            "aten.addmv_",
            "aten._addmm_activation",
            "aten._sparse_addmm",
        ),
        _added_product,
    ),
    "aten._foreach_mm": _products,
    "aten.addr": _outer,
    "aten.addr_": _outer,
    "aten._grouped_mm": _grouped_product,
    "aten._scaled_grouped_mm": _grouped_product,
    "aten.convolution_backward": _convolution_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "aten._scaled_dot_product_fused_attention_overrideable": _attention,
    "aten._scaled_dot_product_fused_attention_overrideable_backward": _attention_backward,
    "aten._flash_attention_forward": _flash(3),
    "aten._flash_attention_backward": _flash_backward(6),
    "flash_attn._flash_attn_varlen_forward": _flash(3),
    "flash_attn._flash_attn_varlen_backward": _flash_backward(9),
    "flash_attn._flash_attn_forward": _flash(3),
    "flash_attn._flash_attn_backward": _flash_backward(9),
    "aten.mkldnn_rnn_layer": _recurrent,
    "aten.mkldnn_rnn_layer_backward": _twice(_recurrent),
    "aten._cudnn_rnn": _recurrent_layers,
    "aten._cudnn_rnn_backward": _twice(_recurrent_layers),
    "aten._fft_c2c": _complex_transform,
    "aten._fft_r2c": _real_transform,
    "aten._fft_c2r": _transform_to_real,
    **dict.fromkeys(
        ("aten.linalg_lu_factor_ex", "aten._linalg_det", "aten._linalg_slogdet"), _factorise
    ),
    "aten._linalg_solve_ex": _solve,
    "aten.linalg_lu_solve": _lu_solve,
    "aten.linalg_solve_triangular": _triangular_solve,
    "aten.linalg_inv_ex": _invert,
    "aten.linalg_cholesky_ex": _cholesky,
    "aten.cholesky_solve": _cholesky_solve,
    "aten.linalg_qr": _qr,
    "aten._linalg_svd": _singular_values,
    "aten.linalg_pinv": _pseudo_inverse,
    "aten._linalg_eigh": _eigenvectors,
    "bitsandbytes.gemm_4bit": _packed_product,
    "bitsandbytes.gemv_4bit": _packed_product,
    "bitsandbytes.int8_linear_matmul": _int8_product,
    "bitsandbytes.int8_scaled_mm": _int8_product,
    "bitsandbytes.int8_mixed_scaled_mm": _int8_mixed_product,
}
