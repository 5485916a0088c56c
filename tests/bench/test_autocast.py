"""Mixed precision: on this CPU as torch does it, simulated on a GPU as CUDA's tables say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from agreement import assert_same_bytes, both
from invariants import check_invariants
from tiny import write

from profiler.bench.cuda import autocast
from profiler.errors import UsageError
from profiler.execute import run
from profiler.record import Record
from profiler.resolve import resolve
from profiler.spec import RunSpec

functional = torch.nn.functional

TABLES = (
    autocast.LOWER_PRECISION,
    autocast.FLOAT32,
    autocast.FLOAT32_RESULT,
    list(autocast.FLOAT32_APPENDED),
    autocast.PROMOTE,
    list(autocast.REFUSED),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def simulated(**fields: object) -> Record:
    record = run(RunSpec(**{"seq_len": 32, "device": "a100-80gb", **fields}))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    return record


@pytest.mark.parametrize(
    ("family", "weights_dtype", "stack"),
    [("opt", "float32", "trainer"), ("llama", "bfloat16", "script")],
)
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("checkpointing", ["reentrant", "non-reentrant"])
def test_a_cpu_casts_as_simulated(
    models: dict[str, str],
    family: str,
    weights_dtype: str,
    stack: str,
    method: str,
    checkpointing: str,
) -> None:
    measured, simulation = both(
        model=models[family],
        method=method,
        stack=stack,
        optimizer="adamw-fused",
        checkpointing=checkpointing,
        weights_dtype=weights_dtype,
        autocast="bfloat16",
    )
    assert_same_bytes(measured, simulation)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_gradient_scaler_is_part_of_a_half_step(models: dict[str, str], method: str) -> None:
    fields = {
        "model": models["llama"],
        "method": method,
        "autocast": "float16",
        "weights_dtype": "float32",
    }
    measured, simulation = both(**fields)
    assert_same_bytes(measured, simulation)
    # Scale and growth tracker stay from step to step; a bfloat16 step has neither.
    _, without = both(**{**fields, "autocast": "bfloat16"})
    held, plain = simulation.memory.after_step_allocated, without.memory.after_step_allocated
    assert held is not None
    assert plain is not None
    assert held - plain == 2 * 4


def test_every_table_is_what_torch_registers() -> None:
    names = [name for table in TABLES for name in table]
    assert len(names) == len(set(names))
    assert set(names) == autocast.registered("AutocastCUDA")


def test_the_cpus_tables_are_back_afterwards() -> None:
    def dtypes() -> list[torch.dtype]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = torch.ones(4, 8, dtype=torch.bfloat16)
            return [function(x).dtype for function in FUNCTIONS.values()]

    before = dtypes(), autocast.registered("AutocastCPU"), torch.is_autocast_enabled
    with autocast.installed():
        assert dtypes() != before[0]
    assert (dtypes(), autocast.registered("AutocastCPU"), torch.is_autocast_enabled) == before


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda x: functional.softmax(x, dim=-1),
    "softmax to bfloat16": lambda x: functional.softmax(x, dim=-1, dtype=torch.bfloat16),
    "log_softmax": lambda x: functional.log_softmax(x, dim=-1),
    "layer_norm": lambda x: functional.layer_norm(x, (8,)),
    "rms_norm": lambda x: functional.rms_norm(x, (8,)),
    "pow": lambda x: x.pow(2),
    "sum": lambda x: x.sum(),
    "norm": lambda x: torch.norm(x),
    "rsqrt": torch.rsqrt,
    "cross_entropy": lambda x: functional.cross_entropy(x, torch.zeros(4, dtype=torch.int64)),
    "gelu": functional.gelu,
    "linear": lambda x: functional.linear(x.float(), torch.ones(2, 8)),
    "matmul": lambda x: x.float() @ torch.ones(8, 2),
    "add": lambda x: x + torch.ones(8),
    "addcmul": lambda x: torch.addcmul(x, x, torch.ones(8)),
    "attention": lambda x: functional.scaled_dot_product_attention(*[x.float()[None]] * 3),
}

#: By CUDA's tables; on a CPU autocast leaves most of these as they come.
ON_CUDA = {
    **dict.fromkeys(FUNCTIONS, torch.float32),
    "softmax to bfloat16": torch.bfloat16,
    "gelu": torch.bfloat16,
    "linear": torch.bfloat16,
    "matmul": torch.bfloat16,
    "attention": torch.bfloat16,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_op_has_the_type_of_cudas_tables(name: str) -> None:
    x = torch.ones(4, 8, dtype=torch.bfloat16)
    with autocast.installed():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert FUNCTIONS[name](x).dtype == ON_CUDA[name]
        if name == "softmax":
            assert FUNCTIONS[name](x).dtype == torch.bfloat16  # outside autocast nothing is cast


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gpu_gives_that_type(name: str) -> None:
    with torch.device("cuda"), torch.autocast("cuda", dtype=torch.bfloat16):
        assert FUNCTIONS[name](torch.ones(4, 8, dtype=torch.bfloat16)).dtype == ON_CUDA[name]


def test_any_type_is_taken_on_cuda() -> None:
    x = torch.ones(4, 8, dtype=torch.bfloat16)
    with autocast.installed(), torch.autocast("cpu", dtype=torch.float32):
        assert (x @ torch.ones(8, 2)).dtype == torch.float32


def test_a_weight_is_cast_once_and_kept_until_autocast_ends() -> None:
    weight = torch.nn.Parameter(torch.ones(8, 8))
    x = torch.ones(4, 8)

    def copies(regions: int) -> int:
        """Copies of the weight that the products of so many regions save."""
        kept: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor)
            return tensor

        y = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            for _ in range(regions):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    functional.linear(y, weight)
                    functional.linear(y, weight)
        return len({tensor.data_ptr() for tensor in kept if tensor.shape == weight.shape})

    # torch's own kernels, then ours: one copy for two products, another in the next region.
    expected = copies(1), copies(2)
    with autocast.installed():
        assert (copies(1), copies(2)) == expected == (1, 2)


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2", "bloom"])
@pytest.mark.parametrize(
    ("checkpointing", "device"), [("reentrant", "a100-80gb"), ("non-reentrant", "t4")]
)
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_gpu_is_simulated(
    models: dict[str, str], family: str, checkpointing: str, device: str, method: str
) -> None:
    """Recomputation must cast as the forward did, or torch refuses what it saves."""
    record = simulated(
        model=models[family],
        method=method,
        checkpointing=checkpointing,
        autocast="bfloat16",
        device=device,
    )
    check_invariants(record)


def test_norms_in_float32_cost_memory(models: dict[str, str]) -> None:
    """OPT's layer norms give float32 under CUDA's autocast, and as much again is kept."""
    fields = {"model": models["opt"], "method": "full", "batch_size": 8, "seq_len": 64}
    plain = simulated(**fields).memory.at_peak["activations"]
    cast = simulated(**fields, autocast="bfloat16").memory.at_peak["activations"]
    # Per layer two norms' results and inputs in float32 instead of bfloat16, at least.
    assert cast - plain >= 2 * 2 * (8 * 64 * 64) * 2


def test_a_trainer_copies_the_logits_to_float32(models: dict[str, str]) -> None:
    fields = {
        "model": models["llama"],
        "method": "lora",
        "autocast": "bfloat16",
        "loop": "script",
        "optimizer": "adamw-fused",
    }
    trainer = simulated(**fields).memory.at_peak["logits_and_loss"]
    script = simulated(**fields, stack="script").memory.at_peak["logits_and_loss"]
    assert trainer - script >= 32 * 512 * 2


@pytest.mark.parametrize("device", ["cpu", "sim:cpu"])
def test_float32_is_refused_where_it_does_nothing(models: dict[str, str], device: str) -> None:
    with pytest.raises(UsageError, match="--autocast float32"):
        resolve(RunSpec(model=models["opt"], autocast="float32", device=device))
