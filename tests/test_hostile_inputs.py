"""Hostile input: one clear line or a valid record; no traceback, no file elsewhere, no code run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fake_cells
import hostile
import pytest
import tiny
from hostile import Terminal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler import diff, sweep, validate
from profiler.errors import ProfilerError
from profiler.export import __main__ as export
from profiler.integrations import baselines
from profiler.record import Record
from profiler.report import __main__ as report
from profiler.store import Store
from profiler.subject import models


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_online", lambda: False)


MODEL = tiny.CONFIGS["llama"]


def _model(terminal: Terminal) -> str:
    return str(Path(terminal.file("llama/config.json", json.dumps(MODEL).encode())).parent)


FLAGS = [
    "--model", "--model-override", "--method", "--quantization", "--stack", "--loop", "--loss",
    "--weights-dtype", "--batch-size", "--seq-len", "--grad-accumulation", "--pad-fraction",
    "--optimizer", "--grad-clip", "--checkpointing", "--attention", "--alloc-conf", "--device",
    "--vram", "--steps", "--seed", "--lengths", "--calibration", "--filter", "--format",
    "--workers", "--executor", "--address", "--slurm-args", "--timeout", "--tokenizer",
]  # fmt: skip


def _flags(terminal: Terminal, flags: list[tuple[str, str]]) -> None:
    words = [word for pair in flags for word in pair]
    if "--model" not in words:
        words += ["--model", _model(terminal)]
    terminal(sweep.main, *words, "--dry-run")


def _method(terminal: Terminal, method: str) -> None:
    terminal(sweep.main, "--model", _model(terminal), f"--method={method}", "--dry-run")


def _model_config(terminal: Terminal, data: bytes) -> None:
    terminal.file("model/bomb.py", b"open('escaped', 'w')\nclass Bomb: pass\n")
    path = terminal.file("model/config.json", data)
    terminal(sweep.main, "--model", path, "--dry-run")
    assert not list(terminal.root.rglob("escaped"))


ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": None,
    "rank_pattern": {},
    "layers_to_transform": [0],
    "auto_mapping": {"base_model_class": "system", "parent_library": "os"},
    "base_model_name_or_path": "../../escaped",
    "runtime_config": {"ephemeral_gpu_offload": False},
}


class _Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("escaped"),)


def _adapter(terminal: Terminal, data: bytes) -> None:
    terminal.file("adapter/adapter_model.bin", pickle.dumps(_Bomb()))
    path = terminal.file("adapter/adapter_config.json", data)
    terminal(
        sweep.main, "--model", _model(terminal), "--method", str(Path(path).parent), "--dry-run"
    )
    assert not list(terminal.root.rglob("escaped"))


def _run(terminal: Terminal, data: bytes) -> None:
    """A cell is not only resolved but simulated, whatever its adapter is."""
    path = terminal.file("adapter/adapter_config.json", data)
    answer = terminal(
        sweep.main,
        *("--model", _model(terminal), "--method", path, "--seq-len", "8", "--overwrite"),
        *("--workers", "1", "--format", "json", "--quiet", "--output", "cells"),
    )
    if answer.code != 2:
        (record,) = json.loads(answer.out)
        assert Record.from_dict(record).status in ("ok", "oom", "unsupported", "failed")
    assert not list(terminal.root.rglob("escaped"))


def _lengths(terminal: Terminal, data: bytes) -> None:
    path = terminal.file("lengths.txt", data)
    terminal(sweep.main, "--model", _model(terminal), "--lengths", path, "--dry-run")


def _full_record() -> dict[str, Any]:
    made = fake_cells.record(fake_cells.spec(), flops={"total": 10, "phases": {"forward": 10}})
    data = made.to_dict()
    data["time"]["kernels"] = [
        {"name": "k", "op": "aten.mm", "phase": "forward", "count": 1, "seconds": 0.1, "flops": 10,
         "bytes": 10},
    ]  # fmt: skip
    data["memory"]["holders"] = [
        {"category": "activations", "op": "aten.mm", "module": "a.*", "count": 2, "bytes": 99}
    ]
    data["memory"]["modules"] = {"a": {"parameters": 3, "activations": 5}}
    data["memory"]["timeline"] = {
        "event": [0, 1], "phase": ["forward", "backward"], "allocated": {"activations": [1, 2]},
        "reserved": [2, 2],
    }  # fmt: skip
    data["fits"] = {"capacity": 24 * 2**30, "headroom": 20 * 2**30}
    return data


RECORD = _full_record()


def _record(terminal: Terminal, data: bytes) -> None:
    good = Record.from_dict({**RECORD, "id": "good"})
    study = Store(terminal.out / "study")
    study.put(good)
    path = study.records / "hostile.json"
    path.write_bytes(data)
    terminal(report.main, str(study.folder), "--output", str(terminal.out / "page"))
    terminal(diff.main, str(path), str(study.path("good", good.environment["fingerprint"])))
    terminal(diff.main, str(study.folder), str(study.folder), "--format", "markdown")
    terminal(export.main, str(study.folder), "--to", "csv")
    terminal(validate.main, "--rows", str(path), "--dry-run")
    with suppress(ProfilerError):
        baseline = baselines.read(path)
        assert baseline is not None
        baselines.judge(baseline, good, None, "baseline")
        baselines.across(baseline, good)


LINES = st.lists(hostile.VALUES.map(lambda value: json.dumps(value).encode()) | st.binary())

#: What is sent, what is done with it, and how often in a usual run.
SURFACES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Terminal, Any], None], int]] = {
    "flags": (
        st.lists(st.tuples(st.sampled_from(FLAGS), hostile.TEXTS), min_size=1, max_size=3),
        _flags,
        60,
    ),
    "method": (hostile.TEXTS, _method, 40),
    "model config": (
        hostile.files({**MODEL, "auto_map": {"AutoModelForCausalLM": "bomb.Bomb"}}),
        _model_config,
        40,
    ),
    "adapter config": (hostile.files(ADAPTER), _adapter, 40),
    "adapter that is run": (hostile.files(ADAPTER), _run, 5),
    "lengths": (LINES.map(b"\n".join).filter(bool), _lengths, 30),
    "record": (hostile.files(RECORD), _record, 20),
}


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.whole_grid)])
@pytest.mark.parametrize("surface", SURFACES)
def test_hostile_input(terminal: Terminal, surface: str, times: int) -> None:
    strategy, check, examples = SURFACES[surface]

    @settings(
        max_examples=examples * times,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(strategy)
    def each(value: Any) -> None:
        check(terminal, value)

    each()
