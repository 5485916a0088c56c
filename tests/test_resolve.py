from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from profiler.errors import NotBuiltError, UsageError
from profiler.hardware import local_cuda
from profiler.resolve import ID_DEFAULTS, check, resolve
from profiler.spec import RunSpec


def identity(**fields: object) -> str:
    return resolve(RunSpec(**{"model": "opt-125m", **fields})).id.rpartition("-")[2]  # type: ignore[arg-type]


def test_a_field_added_later_changes_no_id() -> None:
    """Only what is not at its fixed default is hashed, so each field has one."""
    assert {item.name for item in dataclasses.fields(RunSpec)} == {"model", "method", *ID_DEFAULTS}


def test_two_ways_to_say_the_same_run_are_one_cell() -> None:
    assert identity() == identity(method="lora:r=16") == identity(stack="trainer", loop="trainer")
    assert identity() == identity(attention="sdpa", optimizer="adamw-fused", quantization="none")
    assert identity(method="qlora") == identity(
        method="qlora", quantization="nf4-dq", kbit_prepare="peft", optimizer="paged-adamw-32bit"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"model": "opt-350m"},
        {"method": "lora:r=8"},
        {"seq_len": 512},
        {"device": "t4"},
        {"stack": "script"},
        {"model_override": ("vocab_size=1000",)},
        {"seed": 1},
    ],
)
def test_another_run_is_another_cell(change: dict[str, object]) -> None:
    assert identity(**change) != identity()


def test_a_path_counts_by_its_content(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(config))
    second.write_text(json.dumps({**config, "base_model_name_or_path": "elsewhere"}))
    assert identity(method=str(first)) == identity(method=str(second))
    cell = resolve(RunSpec(model="opt-125m", method=str(first)))
    assert cell.record_spec["method"]["label"] == "a"
    assert str(tmp_path) not in json.dumps(cell.record_spec)


def test_every_field_is_resolved() -> None:
    spec = resolve(RunSpec(model="opt-125m", method="qlora")).record_spec
    left_open = [key for key, value in spec.items() if value is None]
    open_ones = ["vram", "lengths", "text_field", "tokenizer", "max_length"]
    open_ones += ["calibration", "parallelism"]
    assert left_open == open_ones
    assert spec["method"]["config"]["r"] == 64
    assert spec["compute_dtype"] == "bfloat16"


def test_the_stack_decides_and_a_flag_wins() -> None:
    script = resolve(RunSpec(model="opt-125m", stack="script")).spec
    assert (script.loop, script.optimizer, script.use_cache) == ("script", "adamw", True)
    trainer = resolve(RunSpec(model="opt-125m", stack="trainer")).spec
    assert (trainer.loop, trainer.optimizer, trainer.use_cache) == ("trainer", "adamw-fused", False)
    given = resolve(RunSpec(model="opt-125m", stack="script", loop="trainer", use_cache=False)).spec
    assert (given.loop, given.use_cache) == ("trainer", False)
    checkpointed = resolve(RunSpec(model="opt-125m", stack="script", checkpointing="reentrant"))
    assert checkpointed.spec.use_cache is False


def test_attention_is_the_one_the_model_gets() -> None:
    assert resolve(RunSpec(model="opt-125m")).spec.attention == "sdpa"
    assert resolve(RunSpec(model="bloom-560m")).spec.attention == "eager"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"device": "rtx-409"}, "did you mean rtx-4090"),
        ({"optimizer": "adam"}, "did you mean adamw"),
        ({"seq_len": 4096}, "2048 positions"),
        ({"method": "prompt-tuning", "seq_len": 2040}, "20 virtual tokens"),
        ({"padded": True, "seq_len": 2}, "at least 3"),
        ({"alloc_conf": "expandable_segments"}, "expandable_segments"),
        ({"attention": "flash_attention_2", "weights_dtype": "float32"}, "16-bit"),
        ({"model": "bloom-560m", "attention": "sdpa"}, "does not support"),
    ],
)
def test_wrong_values_are_one_line(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        resolve(RunSpec(**{"model": "opt-125m", **fields}))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_the_cpu_is_always_there_and_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(RunSpec(model="opt-125m", device="cpu"))
    monkeypatch.setattr(local_cuda, "missing", lambda: "")
    check(RunSpec(model="opt-125m", device="cuda"))
    monkeypatch.setattr(local_cuda, "missing", lambda: "the driver is on holiday")
    with pytest.raises(UsageError, match=r"driver is on holiday.+simulate.+rtx-4090"):
        check(RunSpec(model="opt-125m", device="cuda"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"method": "qlora", "stack": "script"},
        {"method": "full", "checkpointing": "reentrant", "attention": "eager"},
        {"method": "ia3:target_modules=k_proj,feedforward_modules=[]", "optimizer": "sgd"},
        {"model": "bloom-560m", "use_cache": True, "model_override": ("vocab_size=1000",)},
    ],
)
def test_a_resolved_cell_resolves_to_itself(fields: dict[str, object]) -> None:
    cell = resolve(RunSpec(**{"model": "opt-125m", "device": "cpu", **fields}))  # type: ignore[arg-type]
    again = resolve(cell.spec)
    assert (again.id, again.record_spec) == (cell.id, cell.record_spec)


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "liger"},
        {"loss": "chunked", "stack": "script"},
    ],
)
def test_what_is_not_built_is_refused_by_name(fields: dict[str, object]) -> None:
    with pytest.raises(NotBuiltError, match="not built yet"):
        check(RunSpec(**{"model": "opt-125m", **fields}))  # type: ignore[arg-type]


def test_vram_is_the_same_cell_however_it_is_written() -> None:
    one = resolve(RunSpec(model="opt-125m", vram="8GiB"))
    assert one.id == resolve(RunSpec(model="opt-125m", vram=str(2**33))).id
    assert one.id != resolve(RunSpec(model="opt-125m")).id
    for vram, device in (("8GiB", "cpu"), ("30GiB", "rtx-4090"), ("1MiB", "rtx-4090")):
        with pytest.raises(UsageError, match=r"vram|GiB"):
            resolve(RunSpec(model="opt-125m", vram=vram, device=device))
