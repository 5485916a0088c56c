from __future__ import annotations

import pytest
from hypothesis import given
from traces import traces

from profiler.analysis import flops
from profiler.trace import Op, Trace


def op(name: str, flops: int = 0, nbytes: int = 8, **fields: object) -> Op:
    whole = {"phase": "forward", "module": "", "step": 1, "dtype": "float32", "recompute": False}
    return Op(name=name, flops=flops, nbytes=nbytes, **{**whole, **fields})  # type: ignore[arg-type]


@given(trace=traces())
def test_modules_sum_to_the_phases_and_they_to_the_total(trace: Trace) -> None:
    found = flops.analyse(trace)
    ops = [one for one in trace.ops if one.step == 1]
    assert found.total == sum(found.phases.values()) == sum(one.flops for one in ops)
    for phase, count in found.phases.items():
        assert sum(row.get(phase, 0) for row in found.modules.values()) == count
    assert all(count for row in found.modules.values() for count in row.values())
    assert set(found.phases) == set(flops.PHASES)


def test_recomputation_is_no_backward() -> None:
    trace = Trace(cuda=False, source="simulated")
    trace.ops = [
        op("aten.mm", 10, phase="backward", module="a"),
        op("aten.mm", 4, phase="backward", module="a", recompute=True),
    ]
    found = flops.analyse(trace)
    assert (found.phases["backward"], found.phases["recompute"]) == (10, 4)
    assert found.modules == {"a": {"backward": 10, "recompute": 4}}


@pytest.mark.parametrize(
    "name",
    [
        "aten.addbmm",
        "aten.mv",
        "aten._grouped_mm",
        "aten._scaled_mm_v2",
        "aten.linalg_matrix_exp",
        "aten._fft_c2c",
        "aten.mkldnn_convolution",
        "aten.conv_depthwise3d",
        "aten._cudnn_rnn",
        "aten._cudnn_attention_forward",
        "aten.triangular_solve",
        "aten._trilinear",
        "flash_attn_3.fwd_attn",
        "somebody.nf4_gemm",
        "somebody.matmul4",
    ],
)
def test_work_without_flops_is_named(name: str) -> None:
    assert flops.uncounted([op("aten.mul"), op(name)]) == [name]
    assert flops.uncounted([op(name, 5), op(name)]) == []  # counted, and once of nothing
    trace = Trace(cuda=False, source="simulated", ops=[op(name)])
    (sentence,) = flops.approximations(trace)
    assert name in sentence


@pytest.mark.parametrize(
    "name",
    [
        "aten.mul",
        "aten.add_",
        "aten.cummax",
        "aten.erfinv",
        "aten._foreach_addcmul_",
        "aten.embedding_dense_backward",
        "aten.linalg_vector_norm",
        "aten.lerp_",
        "aten._softmax",
        "bitsandbytes.dequantize_4bit",
        "aten.addcdiv_",
        "bitsandbytes.optimizer_update_32bit",
        "aten.resolve_conj",
        "aten.convert_element_type",
        "aten.copy_",
    ],
)
def test_other_ops_are_not(name: str) -> None:
    assert flops.uncounted([op(name)]) == []


def test_a_product_of_nothing_is_counted() -> None:
    assert flops.uncounted([op("aten.mm", 0, 0)]) == []
