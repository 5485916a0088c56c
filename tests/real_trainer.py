"""A real Trainer of `transformers` or TRL under the storage tracker."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.analysis import memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench.categories import decide
from profiler.bench.modules import ModulePaths
from profiler.bench.tracker import Rules, StorageTracker
from profiler.record import Memory
from profiler.subject.quantization import quant_state_tensors
from profiler.subject.shadows import Shadows
from profiler.trace import Trace


def watch(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Let it train, and say what memory its steps took. Its phases are found by its methods."""
    trace = Trace(cuda=False, source="measured")
    shadows = Shadows()
    shadows.enabled = False
    paths = ModulePaths(trainer.model)
    tracker = StorageTracker(trace, paths, Rules(), shadows)
    for parameter in trainer.model.parameters():
        tracker.register(parameter, "base_parameters", "", "load")
        for _, tensor, _ in quant_state_tensors(parameter):
            tracker.register(tensor, "quantization_state", "", "load")
    for buffer in trainer.model.buffers():
        tracker.register(buffer, "buffers", "", "load")
    compute_loss, clip = trainer.compute_loss, trainer._clip_grad_norm

    def watched_loss(*args: Any, **kwargs: Any) -> Any:
        tracker.step = trainer.state.global_step
        tracker.phase("forward")
        loss = compute_loss(*args, **kwargs)
        tracker.phase("backward")
        return loss

    def watched_clip(*args: Any, **kwargs: Any) -> Any:
        tracker.phase("optimizer")
        return clip(*args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", watched_loss)
    monkeypatch.setattr(trainer, "_clip_grad_norm", watched_clip)
    with paths.watching(), tracker:
        trainer.train()
        tracker.close()
    decide(tracker)
    return memory.analyse(trace, memory.levels(trace, AllocConf(), None))


def described(model: Any) -> dict[str, Any]:
    return {
        name: (parameter.dtype, tuple(parameter.shape), parameter.requires_grad)
        for name, parameter in model.named_parameters()
    }
