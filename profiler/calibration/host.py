"""What the host does beside an op's kernel: Python, dispatch, autograd.

Steps of small models are run, whose kernels hardly take any time; what is left of a phase after its
kernels is shared by its ops. The models are none that anyone profiles, and their methods are those
whose layers do least and most in Python.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from profiler.analysis.cpu_cost import CpuCost
from profiler.calibration.timing import Phases, Stopwatch
from profiler.hardware.device_profile import Host
from profiler.spec import RunSpec
from profiler.trace import PHASES

_SMALL: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 256,
        "max_position_embeddings": 64,
    },
    "opt": {
        "model_type": "opt",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "ffn_dim": 128,
        "vocab_size": 256,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 64,
    },
}
#: Method and optimizer. `adamw` runs its ops one by one on a CPU, `adamw-fused` over all tensors.
CELLS = (("full", "adamw-fused"), ("lora", "adamw-fused"), ("lora", "adamw"))
QUICK_CELLS = CELLS[1:]
TOKENS = 16
STEPS = 12
QUICK_STEPS = 3


def measure(watch: Stopwatch, cost: CpuCost, *, quick: bool) -> Host:
    """Seconds of the host for an op of each phase, and for a tensor of a list: the medians over
    the small models."""
    found: dict[str, list[float]] = {"tensor": [], **{phase: [] for phase in PHASES}}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in list(_SMALL.items())[: 1 if quick else None]:
            home = Path(folder, name)
            home.mkdir()
            (home / "config.json").write_text(json.dumps(config), encoding="utf-8")
            for method, optimizer in QUICK_CELLS if quick else CELLS:
                spec = RunSpec(
                    model=str(home),
                    method=method,
                    optimizer=optimizer,
                    seq_len=TOKENS,
                    device="cpu",
                )
                _add(found, _rests(watch, cost, spec, quick=quick), lists=optimizer != "adamw")
    return Host(**{key: max(0.0, statistics.median(values)) for key, values in found.items()})


def _add(found: dict[str, list[float]], rests: dict[str, _Rest], *, lists: bool) -> None:
    """Share a step's rests out among the ops, or among the tensors of lists."""
    for phase, rest in rests.items():
        if phase == "optimizer" and lists:
            found["tensor"].append(rest.seconds / max(1, rest.items))
        else:
            found[phase].append(rest.seconds / max(1, rest.ops))


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is left of a phase after its kernels, its ops and the tensors of their lists."""

    seconds: float
    ops: int
    items: int


def _rests(watch: Stopwatch, cost: CpuCost, spec: RunSpec, *, quick: bool) -> dict[str, _Rest]:
    """What is left of each phase of a cell's step."""
    from profiler.bench.measured import prepare, track
    from profiler.resolve import resolve

    with torch.enable_grad():
        subject, step = prepare(resolve(spec))
        trace = track(subject, step)
        phases = Phases(watch)
        for _ in range(QUICK_STEPS if quick else STEPS):
            step(phases)
            phases.finish()
    rests = {}
    for phase in PHASES:
        ops = [op for op in trace.ops if op.step == 1 and op.phase == phase]
        kernels = sum(cost.op(op) for op in ops)
        rests[phase] = _Rest(
            seconds=statistics.median(phases.seconds(phase)) - kernels,
            ops=len(ops),
            items=sum(op.items for op in ops),
        )
    return rests
