"""LLM.int8: what a GPU does beside what this CPU does."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from bitsandbytes.autograd import _functions
from tiny import write

from profiler.bench.cuda import bitsandbytes
from profiler.execute import run
from profiler.record import Record
from profiler.spec import RunSpec


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def simulated(model: str, **fields: object) -> Record:
    record = run(RunSpec(**{"model": model, "seq_len": 32, "device": "a100-80gb", **fields}))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    return record


@pytest.mark.parametrize("threshold", [0.0, 6.0])
@pytest.mark.parametrize("shape", [(1, 16), (24, 16)])
def test_rows_without_outliers_are_quantised_to_the_same_sizes(
    shape: tuple[int, int], threshold: float
) -> None:
    op = torch.ops.bitsandbytes.int8_vectorwise_quant.default
    args = (torch.rand(shape, dtype=torch.float16), threshold)
    assert sizes(bitsandbytes.replace()[op](op, args, {})) == sizes(op(*args))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_products_without_outliers_have_the_same_sizes(dtype: torch.dtype) -> None:
    op = torch.ops.bitsandbytes.int8_mixed_scaled_mm.default
    a, weight = torch.rand(24, 16, dtype=dtype), torch.rand(40, 16, dtype=torch.float16)
    quantise = torch.ops.bitsandbytes.int8_vectorwise_quant.default
    ca, sca, columns = quantise(a.to(torch.float16, copy=True), 6.0)
    cb, scb, _ = quantise(weight)
    args = (a, ca, cb, sca, scb, columns, torch.zeros(40, dtype=dtype))
    assert sizes(bitsandbytes.replace()[op](op, args, {})) == sizes(op(*args))


def sizes(values: tuple[torch.Tensor | None, ...]) -> list[object]:
    return [None if value is None else (value.shape, value.dtype) for value in values]


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2", "bloom"])
def test_a_gpu_multiplies_in_8_bits_and_a_cpu_does_not(models: dict[str, str], family: str) -> None:
    (gpu, plain_gpu), (cpu, plain_cpu) = (
        [simulated(models[family], quantization=kind, device=device) for kind in ("int8", "none")]
        for device in ("a100-80gb", "sim:cpu")
    )
    product = "bitsandbytes.int8_mixed_scaled_mm"
    assert gpu.time is not None
    kernels = {(kernel.phase, kernel.op): kernel for kernel in gpu.time.kernels}
    assert ("forward", product) in kernels
    # The backward multiplies with the dequantised weight.
    assert ("backward", product) not in kernels
    assert gpu.flops == plain_gpu.flops
    assert cpu.flops == plain_cpu.flops
    assert bitsandbytes.NO_OUTLIERS in gpu.approximations
    assert bitsandbytes.NO_OUTLIERS not in cpu.approximations


def test_nothing_is_left_replaced(models: dict[str, str]) -> None:
    before = _functions.MatMul8bitFp
    simulated(models["opt"], quantization="int8")
    assert _functions.MatMul8bitFp is before is not _functions.MatMul8bitLt
    assert not logging.getLogger(_functions.__name__).disabled


def test_inputs_stay_for_the_backward_as_they_came(models: dict[str, str]) -> None:
    """`MatMul8bitLt` saves its input, which a frozen 16-bit layer does not."""
    plain, packed = (
        simulated(models["llama"], method="lora:r=1", quantization=quantization, seq_len=256)
        for quantization in ("none", "int8")
    )
    assert packed.memory.at_peak["activations"] > plain.memory.at_peak["activations"]
    assert packed.memory.at_peak["base_parameters"] < plain.memory.at_peak["base_parameters"]
