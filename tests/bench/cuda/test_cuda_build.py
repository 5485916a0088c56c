"""A CUDA build of torch simulates as a CPU build does: nothing asks the machine for a GPU.

Runs where torch is a CUDA build and there is no device, if CPU_BUILD_PYTHON names a Python whose
torch is a CPU build of the same version:

    CPU_BUILD_PYTHON=.venv/bin/python .venv-cuda/bin/python -m pytest tests/bench/cuda
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write

CPU_BUILD = os.environ.get("CPU_BUILD_PYTHON", "")
ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="torch is a CPU build"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
    pytest.mark.skipif(not CPU_BUILD, reason="CPU_BUILD_PYTHON names no Python to compare with"),
]

CELLS: dict[str, dict[str, Any]] = {
    "lora": {"model": "llama", "method": "lora", "device": "a100-80gb"},
    "lora, T4": {"model": "llama", "device": "t4", "weights_dtype": "float16"},
    "lora, padded, H100": {"model": "llama", "device": "h100", "padded": True},
    "dora": {"model": "gpt2", "method": "lora:use_dora=true", "device": "a100-80gb"},
    "qlora": {"model": "opt", "method": "qlora", "device": "t4", "weights_dtype": "float16"},
    "full, autocast": {
        "model": "llama",
        "method": "full",
        "device": "rtx-4090",
        "weights_dtype": "float32",
        "autocast": "bfloat16",
    },
    "full, 8-bit Adam": {
        "model": "opt",
        "method": "full",
        "device": "a100-80gb",
        "optimizer": "adamw-8bit",
    },
    "ia3": {"model": "bloom", "method": "ia3", "device": "t4", "weights_dtype": "float32"},
    "prefix tuning": {"model": "llama", "method": "prefix-tuning", "device": "a100-80gb"},
    "int8": {"model": "llama", "quantization": "int8", "device": "a100-80gb"},
    "flash_attention_2": {
        "model": "llama",
        "device": "a100-80gb",
        "attention": "flash_attention_2",
        "padded": True,
    },
    "CPU": {"model": "llama", "method": "lora", "device": "sim:cpu"},
    "CPU, qlora": {"model": "opt", "method": "qlora", "device": "sim:cpu"},
}

_RUN = """
import json, sys
from profiler.execute import run
from profiler.spec import RunSpec
for fields in json.load(sys.stdin):
    print("RECORD", run(RunSpec(**fields)).model_dump_json())
"""


def records(python: str, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [python, "-c", _RUN],
        input=json.dumps(cells),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    return [json.loads(line.removeprefix("RECORD ")) for line in lines if line[:7] == "RECORD "]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    models = write(Path(tmp_path_factory.mktemp("models")))
    cells = [
        {"seq_len": 64, "batch_size": 2, **cell, "model": models[cell["model"]]}
        for cell in CELLS.values()
    ]
    ours, theirs = records(sys.executable, cells), records(CPU_BUILD, cells)
    return dict(zip(CELLS, zip(ours, theirs, strict=True), strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_the_same_record(pairs: dict[str, tuple[Any, Any]], name: str) -> None:
    ours, theirs = (dict(record) for record in pairs[name])
    assert ours["status"] == theirs["status"] == "ok", (ours["error"], theirs["error"])
    for record in (ours, theirs):
        del record["environment"], record["time"]
    assert ours == theirs
