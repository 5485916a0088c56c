"""Any valid spec gives a record whose parts sum to the whole, and the real step's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agreement import assert_same_bytes, tracked
from hypothesis import HealthCheck, Phase, assume, event, given, seed, settings
from hypothesis import strategies as st
from invariants import check_invariants
from tiny import CONFIGS, fitted, write

from profiler.errors import UsageError
from profiler.execute import run
from profiler.record import Record
from profiler.spec import RunSpec
from profiler.subject import methods, optimizers

METHODS = (
    *(fitted(name) for name in methods.names()),
    "lora:use_dora=true,r=4",
    "lora:use_rslora=true,r=4,lora_dropout=0.0",
    "lora&ia3",
    "lora:r=4&lora:r=8",
    "lora:r=4&bitfit",
    "prompt-tuning&lora:r=4",
    "adapter&vera",
    "qlora&ln-tuning",
    "hira:r=4&oft",
)
DTYPES = ("bfloat16", "float16", "float32")
STACKS = st.sampled_from(
    [
        {"stack": "script"},
        {"stack": "trainer"},
        {"stack": "trl", "loss": "chunked"},
        {"stack": "trl", "loss": "full"},
    ]
)
SPECS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(sorted(CONFIGS)),
        "method": st.sampled_from(METHODS),
        "device": st.sampled_from(["t4", "rtx-4090", "a100-80gb", "h100", "sim:cpu"]),
        "batch_size": st.integers(1, 3),
        "seq_len": st.integers(3, 48),
        "loop": st.sampled_from([None, "script", "step-function", "trainer"]),
        "quantization": st.sampled_from([None, "nf4", "nf4-dq", "fp4", "fp4-dq", "int8", "none"]),
        "kbit_prepare": st.sampled_from([None, "none", "peft", "trl"]),
        "weights_dtype": st.sampled_from(DTYPES),
        "adapter_dtype": st.sampled_from([None, "float32", "bfloat16"]),
        "compute_dtype": st.sampled_from([None, None, "float32", "bfloat16"]),
        "autocast": st.sampled_from([None, "none", "bfloat16", "float16"]),
        "checkpointing": st.sampled_from([None, "none", "reentrant", "non-reentrant"]),
        "attention": st.sampled_from(["auto", "eager"]),
        "optimizer": st.sampled_from(
            [None, *(name for name in optimizers.names() if name not in ("lora-fa", "lora-plus"))]
        ),
        "padded": st.booleans(),
        "use_cache": st.sampled_from([None, True, False]),
        "grad_accumulation": st.integers(1, 2),
        "grad_clip": st.sampled_from([0.0, 1.0]),
        "alloc_conf": st.sampled_from(["", "expandable_segments:True"]),
    }
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def simulated(spec: RunSpec) -> Record:
    """The record of a spec, where what is combined exists."""
    # What is refused otherwise is not drawn: these depend on what method and stack bring along.
    refusals = (f"--method {spec.method}: ", "--kbit-prepare trl ")
    try:
        return run(spec)
    except UsageError as error:
        if not str(error).startswith(refusals):
            raise
    assume(False)
    raise AssertionError


@seed(20261122)
@settings(
    max_examples=100,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a failing spec is small enough as it is
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(fields=SPECS, stack=STACKS)
def test_every_valid_spec_gives_a_record(
    models: dict[str, str], fields: dict[str, Any], stack: dict[str, str]
) -> None:
    if stack["stack"] == "trl":
        fields = {**fields, "use_cache": None}
    spec = RunSpec(**{**fields, **stack, "model": models[fields["model"]]})
    record = simulated(spec)
    event(record.status)
    if record.status == "ok":
        check_invariants(record)
        return
    assert record.status in ("failed", "unsupported")
    assert record.error
    if record.status == "failed":
        # A step that cannot be run is no step to simulate: libraries let types meet.
        with pytest.raises(Exception):  # noqa: B017
            tracked(spec.replace(device="cpu"))


@seed(20261123)
@settings(
    max_examples=24,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    fields=SPECS,
    stack=STACKS,
    weights=st.sampled_from(["bfloat16", "float32"]),
    # A gradient scaler skips the steps of a real run that overflow: no float16 here.
    autocast=st.sampled_from([None, "none", "bfloat16"]),
)
def test_a_spec_of_this_cpu_is_its_real_step(
    models: dict[str, str],
    fields: dict[str, Any],
    stack: dict[str, str],
    weights: str,
    autocast: str | None,
) -> None:
    if stack["stack"] == "trl":
        fields = {**fields, "use_cache": None}
    drawn = {"weights_dtype": weights, "autocast": autocast, "device": "sim:cpu"}
    spec = RunSpec(**{**fields, **stack, **drawn, "model": models[fields["model"]]})
    record = simulated(spec)
    event(record.status)
    if record.status == "unsupported":
        return
    if record.status == "failed":
        with pytest.raises(Exception):  # noqa: B017
            tracked(spec.replace(device="cpu"))
        return
    assert record.status == "ok", record.error
    assert_same_bytes(tracked(spec.replace(device="cpu")), record)
