"""Formulas held to torch's own where it has them, and to what the definition gives elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from profiler.bench.flop_formulas import formula

aten = torch.ops.aten


def count(op: Any, *args: Any, **kwargs: Any) -> int:
    """The FLOPs of an op that is really run."""
    found = formula(op._overloadpacket)
    assert found is not None
    return found(*args, **kwargs, out_val=op(*args, **kwargs))


def torchs(op: Any, *args: Any) -> int:
    return int(flop_registry[op._overloadpacket](*args, out_val=op(*args)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_torch(dtype: torch.dtype) -> None:
    a, b, total = (torch.ones(shape, dtype=dtype) for shape in ((3, 5), (5, 7), (3, 7)))
    for op, args in (
        (aten.mm.default, (a, b)),
        (aten.addmm.default, (total, a, b)),
        (aten.bmm.default, (a.expand(2, 3, 5), b.expand(2, 5, 7))),
        (aten.baddbmm.default, (total.expand(2, 3, 7), a.expand(2, 3, 5), b.expand(2, 5, 7))),
    ):
        assert count(op, *args) == torchs(op, *args) > 0
    assert count(aten.addmm_.default, total, a, b) == 2 * 3 * 5 * 7
    assert count(aten.mv.default, a, b[:, 0]) == 2 * 3 * 5
    assert count(aten.dot.default, a[0], a[1]) == 2 * 5
    assert count(aten.addr.default, total, a[:, 0], b[0]) == 2 * 3 * 7


def test_a_complex_multiply_add_is_four_real_ones() -> None:
    a, b = torch.ones(2, 3, 5, dtype=torch.complex64), torch.ones(2, 5, 7, dtype=torch.complex64)
    assert count(aten.bmm.default, a, b) == 4 * count(aten.bmm.default, a.real, b.real)


def test_a_sparse_product_counts_its_entries() -> None:
    a = torch.eye(6).to_sparse()
    assert count(aten.mm.default, a, torch.ones(6, 4)) == 2 * 6 * 4
    assert count(aten._sparse_addmm.default, torch.ones(6, 4), a, torch.ones(6, 4)) == 2 * 6 * 4


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_on_a_cpu_counts_as_on_a_gpu(groups: int) -> None:
    query = torch.ones(2, 4, 6, 16)
    key = value = torch.ones(2, groups, 6, 16)
    shapes = (query.shape, key.shape, value.shape)
    found = formula(aten._scaled_dot_product_flash_attention_for_cpu)
    backward = formula(aten._scaled_dot_product_flash_attention_for_cpu_backward)
    assert found is not None
    assert backward is not None
    assert found(query, key, value, out_val=None) == sdpa_flop_count(*shapes)
    grads = sdpa_backward_flop_count(query.shape, *shapes)
    assert backward(query, query, key, value, out_val=None) == grads


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_each_gradient_of_a_convolution_is_as_much_as_its_forward(
    groups: int, transposed: bool
) -> None:
    x, weight = torch.ones(2, 6, 9), torch.ones(6, 6 // groups, 4)
    settings = ([2], [1], [1], transposed, [0], groups)
    out = aten.convolution.default(x, weight, None, *settings)
    forward = count(aten.convolution.default, x, weight, None, *settings)
    for mask, gradients in (([True, True, False], 2), ([False, True, False], 1)):
        args = (torch.ones_like(out), x, weight, None, *settings, mask)
        assert count(aten.convolution_backward.default, *args) == gradients * forward


def test_experts_products_are_those_of_their_rows() -> None:
    """Forward, gradient of the rows, and gradient of the weights: one count."""
    rows, experts, size, out = 8, 2, 16, 24
    ends = torch.tensor([3, rows], dtype=torch.int32)
    a = torch.ones(rows, size, dtype=torch.bfloat16)
    weights = torch.ones(experts, size, out, dtype=torch.bfloat16)
    grad = torch.ones(rows, out, dtype=torch.bfloat16)
    found = formula(aten._grouped_mm)
    assert found is not None
    expected = 2 * rows * size * out
    assert found(a, weights, ends, out_val=grad) == expected
    assert found(grad, weights.transpose(1, 2), ends, out_val=a) == expected
    assert found(a.t(), grad, ends, out_val=weights) == expected


@pytest.mark.parametrize("points", [8, 64])
def test_a_transform_is_n_log_n(points: int) -> None:
    logarithm = points.bit_length() - 1
    rows = torch.ones(3, points)
    spectrum = torch.ones(3, points, dtype=torch.complex64)
    assert count(aten._fft_c2c.default, spectrum, [1], 0, True) == 5 * 3 * points * logarithm
    real = count(aten._fft_r2c.default, rows, [1], 0, True)
    back = count(aten._fft_c2r.default, spectrum[:, : points // 2 + 1], [1], 0, points)
    assert real == back == 5 * 3 * points * logarithm / 2


def test_a_solution_is_a_factorisation_and_two_triangles() -> None:
    a, b = torch.eye(6).expand(2, 6, 6), torch.ones(2, 6, 3)
    factored = count(aten.linalg_lu_factor_ex.default, a)
    lu, pivots, _ = aten.linalg_lu_factor_ex.default(a)
    solved = count(aten.linalg_lu_solve.default, lu, pivots, b)
    triangle = count(aten.linalg_solve_triangular.default, a, b, upper=True)
    assert factored == round(2 * 2 / 3 * 6**3)
    assert solved == 2 * triangle == 2 * 2 * 6 * 6 * 3
    assert count(aten._linalg_solve_ex.default, a, b) == factored + solved


def test_recurrent_layers_multiply_by_each_weight_at_each_position() -> None:
    """As the products of the same layer without oneDNN's fused op."""
    layer = torch.nn.LSTM(8, 16, num_layers=2, bidirectional=True)
    x = torch.ones(5, 3, 8)
    totals = []
    for fused in (True, False):
        with torch.backends.mkldnn.flags(enabled=fused), _Counter() as counter:
            layer(x)[0].sum().backward()
        totals.append(counter.total)
    products = 5 * 3 * 2 * sum(one.numel() for one in layer.parameters() if one.dim() == 2)
    # Without it, what nothing needs has no gradient: the input's, and the first state's.
    assert totals[0] == 3 * products
    assert 2 * products < totals[1] <= totals[0]


class _Counter(torch.utils._python_dispatch.TorchDispatchMode):
    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        found = formula(func._overloadpacket)
        if found is not None:
            self.total += found(*args, **(kwargs or {}), out_val=out)
        return out
