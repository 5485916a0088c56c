"""Watches any training loop as it runs: times by phase, memory, energy."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch

from profiler.analysis import flops, memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench.categories import decide
from profiler.bench.measured import peak_resident, reset_peak_resident, resident
from profiler.bench.modules import ModulePaths
from profiler.bench.nvml import Sampler
from profiler.bench.tracker import Rules
from profiler.environment import environment
from profiler.integrations import described
from profiler.integrations.clocks import Clock, CudaClock, measured_time
from profiler.integrations.phases import Listener, Phases, tokens, unwrapped
from profiler.integrations.watching import LiveTracker, Roles, register_live
from profiler.record import Memory, Record
from profiler.subject.shadows import Shadows
from profiler.trace import Trace

_FOUND = (
    "Phases were found by the backward and the optimizer's step; a step begins where the one "
    "before ended, and what the loop does before a forward (loading data, evaluating) counts as "
    "forward."
)
_NO_STEP = "no step was finished: optimizer.step() of the given optimizer was never called"
_NOT_TRACED = "trace=True takes the second step of the loop, and it had none."
_TRACED = (
    "Bytes are of the loop's second step under the storage tracker; what was allocated outside of "
    "the model and the optimizer before it is counted if a forward was given it."
)


def watch(model: torch.nn.Module, optimizer: Any = None, *, trace: bool = False) -> Watch:
    """Watch a training loop.

    >>> with profiler.watch(model, optimizer) as watched:  # doctest: +SKIP
    ...     for batch in loader:
    ...         model(**batch).loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    >>> watched.record.time.step  # doctest: +SKIP

    A step ends with the optimizer's `step`. Light: hooks on the model's call, the backward and the
    optimizer, none on ops or modules. On CUDA there are the allocator's peaks by phase (its peak
    statistics are reset at each phase), and energy where NVML tells it; no GPU has run that. On a
    CPU there is the process's resident memory; `record.time` has the medians of the steps after the
    first, `record.step_seconds` each step's.

    Args:
        model: the module that the loop calls.
        optimizer: whose step ends a step; it may be wrapped by accelerate. None for any optimizer.
        trace: run the second step under the storage tracker, for `memory.at_peak`, `modules`, the
            timeline and FLOPs. That step takes longer, and is left out of the times.

    Returns:
        A context manager; its `record` is there when the context is left.
    """
    return Watch(model, optimizer, trace=trace)


class Watch(Listener):
    """What `watch` gives; used once.

    Attributes:
        record: what was measured, None until the context is left.
    """

    def __init__(
        self, model: torch.nn.Module, optimizer: Any = None, *, trace: bool = False
    ) -> None:
        self.record: Record | None = None
        self._model = model
        self._optimizer = unwrapped(optimizer)
        self._wanted = trace
        self._device = next(model.parameters()).device
        cuda = self._device.type == "cuda"
        self._clock = CudaClock(self._device) if cuda else Clock()
        self._sampler = Sampler(_uuid(self._device)) if cuda else None
        self._phases = Phases(model, self, optimizer=self._optimizer)
        self._steps = 0
        self._tokens: list[int] = [0]
        self._traced: _Traced | None = None
        self._rss_before = 0
        self._stack = ExitStack()

    def __enter__(self) -> Watch:
        with ExitStack() as stack:
            stack.enter_context(self._sampler or contextlib.nullcontext())
            stack.enter_context(self._phases)
            self._stack = stack.pop_all()
        self._rss_before = resident()
        reset_peak_resident()
        self._phases.begin_step()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._traced is not None:
            self._traced.stop()
        self._clock.close()
        self._stack.close()
        self.record = self._recorded()
        if error is not None:
            self.record.status = "failed"
            self.record.error = " ".join(f"{type(error).__name__}: {error}".split())[:500]

    def step_begins(self) -> None:
        """Leave out what ran since the last step (an evaluation, a checkpoint's saving)."""
        self._clock.restart("forward")

    # --- what the loop does --------------------------------------------------------------------

    def phase(self, name: str) -> None:
        self._clock.phase(name)
        if self._tracked is not None:
            self._tracked.phase(name)

    def forward_begins(self, inputs: dict[str, Any]) -> None:
        self._tokens[-1] += tokens(inputs)
        if self._tracked is not None:
            self._tracked.forward_begins(inputs)

    def forward_done(self, outputs: Any) -> None:
        if self._tracked is not None:
            self._tracked.forward_done(outputs)

    def backward_done(self) -> None:
        if self._tracked is not None:
            self._tracked.backward_done()

    def optimizer_done(self, optimizer: torch.optim.Optimizer) -> None:
        if self._traced is not None and self._traced.running:
            self._traced.roles.optimizer_done(optimizer)
            self._traced.stop()
            self._phases.lazy = False
        self._clock.end_step()
        self._phases.current = "forward"
        self._steps += 1
        self._tokens.append(0)
        if self._wanted and self._steps == 1:
            self._traced = _Traced(self._model, self._optimizer or optimizer, self._phases)
            self._phases.lazy = True

    @property
    def _tracked(self) -> Roles | None:
        return self._traced.roles if self._traced is not None and self._traced.running else None

    # --- the record ----------------------------------------------------------------------------

    def _recorded(self) -> Record:
        device = self._device.type
        spec = described.spec(self._model, self._optimizer, device, steps=self._steps)
        record = Record(
            id=described.identity(spec),
            status="ok" if self._steps else "failed",
            error=None if self._steps else _NO_STEP,
            source="measured",
            spec=spec,
            params=described.counts(self._model),
            approximations=[_FOUND],
            environment=environment(device),
        )
        record.memory = self._clock.memory()
        times = list(self._clock.steps)
        if times:
            # The first step warms up, the second is the tracker's.
            skipped = (2 if self._traced is not None else 1) - (self._steps - len(times))
            timed = times[max(skipped, 0) :] or times[-1:]
            trained = self._tokens[1 : self._steps] or self._tokens[:1]
            record.time = measured_time(timed, sum(trained) / len(trained))
            seconds: Any = [sum(step.values()) for step in times]
            record.step_seconds = seconds  # type: ignore[attr-defined]
        if self._traced is not None and self._traced.complete:
            trace = self._traced.trace
            seen = memory.analyse(trace, memory.levels(trace, AllocConf(), None))
            record.memory = _with_allocator(seen, record.memory)
            record.flops = flops.analyse(trace)
            record.approximations += [_TRACED, *flops.approximations(trace)]
        elif self._wanted:
            record.approximations.append(_NOT_TRACED)
        record.memory.process = {"rss_before": self._rss_before, "rss_peak": peak_resident()}
        reading = self._sampler.reading if self._sampler is not None else None
        if reading is not None and self._steps:
            record.energy = reading.energy(self._steps)
            record.device_state = reading.state()
            record.memory.device_total = reading.process_memory
        return record


class _Traced:
    """One step under the storage tracker."""

    def __init__(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, phases: Phases
    ) -> None:
        self.trace = Trace(cuda=False, source="measured")
        self.complete = False
        self.running = True
        shadows = Shadows()
        shadows.enabled = False
        paths = ModulePaths(model)
        self.tracker = LiveTracker(self.trace, paths, Rules(), shadows)
        self.tracker.phases = phases
        register_live(
            self.tracker, model, described.adapter_names(model), described.counts(model), optimizer
        )
        self.roles = Roles(self.tracker, model)
        self.tracker.step = 1
        self.tracker.phase("forward")
        self._watching = paths.watching()
        self._watching.__enter__()
        self.tracker.__enter__()

    def stop(self) -> None:
        """The step is over, or the loop broke off."""
        if not self.running:
            return
        self.running = False
        self.tracker.close()
        self.tracker.__exit__(None, None, None)
        self._watching.__exit__(None, None, None)
        self.complete = self.tracker.current_phase == "optimizer"
        decide(self.tracker)


def _with_allocator(seen: Memory, allocator: Memory) -> Memory:
    """The tracker's breakdown with a CUDA allocator's figures, where there are any; what it holds
    beside the tracked bytes counts as workspaces (`profiler.bench.cuda_memory`)."""
    if allocator.peak_allocated is None:
        return seen
    at_peak = dict(seen.at_peak)
    rest = allocator.peak_allocated - sum(at_peak.values())
    at_peak["workspaces"] = at_peak.get("workspaces", 0) + rest
    figures = ("peak_allocated", "peak_reserved", "after_step_allocated", "phases")
    changes = {name: getattr(allocator, name) for name in figures}
    return seen.model_copy(update={**changes, "at_peak": at_peak})


def _uuid(device: torch.device) -> str:
    return str(torch.cuda.get_device_properties(device).uuid)
