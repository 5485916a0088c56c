"""Measured steps as pytest-benchmark's rounds: what is timed, and when two timings compare."""

from __future__ import annotations

from typing import Any

from profiler.environment import decisive, environment
from profiler.errors import UnsupportedError, UsageError
from profiler.spec import RunSpec

#: Key of a benchmark's `extra_info`.
KEY = "peft_profile"
#: What decides bytes, or the step as this package runs it, and hardly its time.
_UNTELLING = ("profiler", "profiler_sources", "os")


def time_steps(benchmark: Any, spec: RunSpec, rounds: int) -> None:
    """Time a cell's bare steps, really run in this process, after two that are not timed.

    Args:
        benchmark: pytest-benchmark's fixture. It stores and compares the times; the cell and what
            it ran on stand in its `extra_info`.

    Raises:
        UsageError: the spec is wrong, or of a device that is not measured.
        UnsupportedError: the model cannot be trained so.
    """
    from profiler.hardware import devices
    from profiler.resolve import resolve

    if spec.device not in devices.MEASURED:
        raise UsageError(
            f"times are measured: device must be {' or '.join(devices.MEASURED)}, not "
            f"{spec.device}; a predicted time is record.time.step of peft_profile(...)"
        )
    cell = resolve(spec)
    if cell.unsupported:
        raise UnsupportedError(cell.unsupported)
    from profiler.bench.measured import import_all, prepare
    from profiler.subject.workloads.train import Unwatched

    import_all()
    _, step = prepare(cell)
    benchmark.extra_info[KEY] = {"id": cell.id, "on": spec.device, **_about(spec.device)}
    benchmark.pedantic(lambda: step(_Waiting(Unwatched(), spec.device)), rounds=rounds,
                       iterations=1, warmup_rounds=2)  # fmt: skip


class _Waiting:
    """Tells nobody of a step's phases, and waits for a GPU at the step's end."""

    def __init__(self, probe: Any, device: str) -> None:
        self._probe, self._device = probe, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probe, name)

    def optimizer_done(self) -> None:
        self._probe.optimizer_done()
        if self._device == "cuda":  # no GPU has run this
            import torch

            torch.cuda.synchronize()


def incomparable(stored: dict[str, Any]) -> str:
    """Why a stored benchmark of ours is not to be held against one timed here and now; "" if it
    is, or is none of ours."""
    there = (stored.get("extra_info") or {}).get(KEY)
    if not isinstance(there, dict):
        return ""
    here = _about(str(there.get("on", "cpu")))
    names = [name for name in here if here[name] != there.get(name)]
    return ", ".join(f"{name} {there.get(name)} there, {here[name]} here" for name in names)


def _about(device: str) -> dict[str, Any]:
    """What decides a time: libraries, processor, card and driver."""
    found = environment(device)
    return {name: found.get(name) for name in decisive(device) if name not in _UNTELLING}
