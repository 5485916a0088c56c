"""The measured bench: the step really run, on this CPU or on a CUDA device.

In this order, in a process that has done nothing else: a warm-up and one step under the storage
tracker, inside the memory window of `torch.profiler` (whose figures are right only if it opens
before the first step); the timed steps, bare; one more step under `torch.profiler` for its kernels.
`time` comes from the bare steps, its kernels' shares of it from the last one.

The CUDA half (events, allocator statistics) is written to be read: no GPU has run it.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from profiler.analysis import flops, memory, utilisation
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench import cuda_memory, kernels, weights
from profiler.bench.categories import decide
from profiler.bench.host_allocator import returning_freed
from profiler.bench.modules import ModulePaths
from profiler.bench.nvml import Sampler
from profiler.bench.subject_trace import TraceProbe, batch_values, register, register_maps
from profiler.bench.tracker import Rules, StorageTracker
from profiler.environment import environment
from profiler.hardware.devices import Device
from profiler.hardware.recognise import recognise
from profiler.record import Record, Time
from profiler.resolve import Cell
from profiler.store import Store
from profiler.subject import optimizers
from profiler.subject.shadows import Shadows
from profiler.subject.subject import Subject, build
from profiler.subject.workloads.train import TrainStep, Unwatched
from profiler.trace import PHASES, Trace


def measure(cell: Cell, *, traces: Path | None = None) -> Record:
    """Run a cell in this process, which should be its own.

    Args:
        traces: folder of a store that keeps the trace, written when all is measured.

    Raises:
        MemoryError, RuntimeError: as torch raises them; the caller makes a record of it.
    """
    spec = cell.spec
    device = spec.device
    record = Record(
        id=cell.id,
        status="failed",
        source="measured",
        spec=cell.record_spec,
        environment=environment(device),
    )
    import_all()
    losses: list[float] = []
    with returning_freed():
        process = {"rss_before": resident()}
        started = time.perf_counter()
        subject, step = prepare(cell)
        built = time.perf_counter() - started
        process["rss_loaded"] = resident()
        record.params = subject.params
        with allocator_window() as window:
            reset_peak_resident()
            trace = track(subject, step, window.mark, losses)
            process["rss_peak"] = peak_resident()
    seen = window.peak(sum(block.nbytes for block in trace.blocks if block.phase == "setup"))
    record.memory = memory.analyse(trace, memory.levels(trace, AllocConf(), None))
    record.flops = flops.analyse(trace)
    if device == "cpu":  # a GPU's bytes are the allocator's own
        assert spec.optimizer is not None
        record.approximations = list(optimizers.approximations(spec.optimizer, cuda=False))
    record.approximations += flops.approximations(trace)
    timer = _timer(device)
    with Sampler(_uuid()) if device == "cuda" else contextlib.nullcontext() as sampler:
        assert spec.steps is not None
        for _ in range(spec.steps):
            step(timer)
            timer.finish()
            losses.append(timer.loss)
    if sampler is not None:
        reading = sampler.reading
        record.energy = reading.energy(spec.steps) if reading is not None else None
        record.device_state = reading.state() if reading is not None else None
        held = reading.process_memory if reading is not None else None
        record.memory = cuda_memory.measure(step, record.memory, held)
    tokens = spec.batch_size * spec.seq_len * spec.grad_accumulation
    profile = kernels.profile(step, trace, device)
    record.time = kernels.into(timer.time(tokens), profile, on_device=device == "cuda")
    if device == "cuda":
        record.time.mfu = utilisation.on_device(record.flops, record.time.step, spec, _card())
    assert record.memory.peak_allocated is not None
    process["rss_explained"] = process["rss_before"] + record.memory.peak_allocated
    record.memory.process = process
    extra: dict[str, Any] = {
        "losses": losses,
        "build_seconds": built,
        "allocator_peak": seen,
    }
    for key, value in extra.items():
        setattr(record, key, value)
    record.status = "ok"
    if traces is not None:
        Store(traces).keep_trace(record, trace)
    return record


def import_all() -> None:
    """Import what a step imports on its way, so that it is not taken for the step's memory."""
    import bitsandbytes
    import peft
    from transformers import Trainer

    del bitsandbytes, peft, Trainer
    # The first product starts the thread pool and the library's own caches.
    sample = torch.ones(64, 64, dtype=torch.bfloat16, requires_grad=True)
    (sample @ sample).sum().backward()


def prepare(cell: Cell) -> tuple[Subject, TrainStep]:
    """A cell's subject in memory, and its step. The seed decides weights, adapter and batch."""
    spec = cell.spec
    device = spec.device
    torch.manual_seed(spec.seed)
    subject = build(cell, device=device, fill=partial(weights.fill, seed=spec.seed, device=device))
    batch = {name: value.to(device) for name, value in batch_values(subject, spec).items()}
    step = TrainStep(subject, spec, batch, cuda=device == "cuda")
    optimizers.warm_up(step.optimizer)
    return subject, step


def track(
    subject: Subject,
    step: TrainStep,
    mark: Callable[[int], None] = lambda number: None,
    losses: list[float] | None = None,
) -> Trace:
    """A warm-up and one step under the tracker.

    Args:
        mark: called with the number of each step before it begins.
        losses: takes the loss of each.
    """
    trace = Trace(cuda=False, source="measured")
    shadows = Shadows()
    shadows.enabled = False
    paths = ModulePaths(subject.model)
    tracker = StorageTracker(trace, paths, Rules(), shadows)
    register(tracker, subject)
    for name, tensor in step.batch.items():
        tracker.register(tensor, "inputs", "", name)
    register_maps(tracker, step.optimizer)
    probe = _Losses(tracker, step)
    with paths.watching(), tracker:
        step.before()
        for number in range(2):
            tracker.step = number
            mark(number)
            step(probe)
            if losses is not None:
                losses.append(probe.loss)
        tracker.close()
    decide(tracker)
    return trace


class _Losses(TraceProbe):
    """Reads the loss of each forward, which allocates nothing."""

    loss = float("nan")

    def forward_done(self, outputs: Any) -> None:
        super().forward_done(outputs)
        self.loss = float(outputs.loss.detach())


class _Window:
    """The allocator's events between two marks (`torch.profiler`, `profile_memory=True`)."""

    def __init__(self) -> None:
        self.profile: Any = None

    def mark(self, number: int) -> None:
        with torch.profiler.record_function(f"profiler.step.{number}"):
            pass

    def peak(self, base: int) -> int | None:
        """Bytes allocated at most after the second mark; `base` was there before the window."""
        events = self.profile.profiler.kineto_results.events()
        begin = next(
            (event.start_ns() for event in events if event.name() == "profiler.step.1"), None
        )
        if begin is None:
            return None
        changes = sorted(
            (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
        )
        level = highest = base
        before = base
        for at, nbytes in changes:
            level += nbytes
            if at < begin:
                before = level
            else:
                highest = max(highest, level)
        return max(highest, before)


@contextmanager
def allocator_window() -> Iterator[_Window]:
    """Watch the C++ allocator; nothing of what torch allocates passes it by."""
    window = _Window()
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as window.profile:
        yield window


class CpuTimer(Unwatched):
    """Times a bare step by phase, and keeps nothing of it."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.loss = float("nan")
        self._phase = ""
        self._since = 0.0
        self._current = dict.fromkeys(PHASES, 0.0)

    def phase(self, name: str) -> None:
        now = time.perf_counter()
        if self._phase:
            self._current[self._phase] += now - self._since
        self._phase, self._since = name, now

    def forward_done(self, outputs: Any) -> None:
        self.loss = float(outputs.loss.detach())

    def finish(self) -> None:
        """The step is over."""
        self.phase("")
        self.steps.append(self._current)
        self._current = dict.fromkeys(PHASES, 0.0)

    def time(self, tokens: int) -> Time:
        """Medians over the steps, and their spread."""
        totals = sorted(sum(step.values()) for step in self.steps)
        median = statistics.median(totals)
        phases = {name: statistics.median(step[name] for step in self.steps) for name in PHASES}
        return Time(
            source="measured",
            step=median,
            phases=phases,
            tokens_per_second=tokens / median,
            spread={"p20": _quantile(totals, 0.2), "median": median, "p80": _quantile(totals, 0.8)},
        )


class CudaTimer(CpuTimer):
    """As `CpuTimer`, from events on the device's stream. No GPU has run it."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[str, Any]] = []

    def phase(self, name: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append((name, event))

    def forward_done(self, outputs: Any) -> None:
        pass  # reading the loss would wait for the device

    def finish(self) -> None:
        self.phase("")
        torch.cuda.synchronize()
        for (name, event), (_, after) in zip(self._events, self._events[1:], strict=False):
            self._current[name] += event.elapsed_time(after) / 1e3
        self._events.clear()
        self.steps.append(self._current)
        self._current = dict.fromkeys(PHASES, 0.0)


def _card() -> Device | None:
    """The device as the table of GPUs has it."""
    properties = torch.cuda.get_device_properties(0)
    return recognise(
        properties.name,
        compute_capability=(properties.major, properties.minor),
        sm_count=properties.multi_processor_count,
        memory_bytes=properties.total_memory,
    )


def _uuid() -> str:
    return str(torch.cuda.get_device_properties(0).uuid)


def _timer(device: str) -> CpuTimer:
    return CudaTimer() if device == "cuda" else CpuTimer()


def _quantile(ordered: list[float], share: float) -> float:
    if len(ordered) == 1:
        return ordered[0]
    cuts = statistics.quantiles(ordered, n=10, method="inclusive")
    return cuts[round(share * 10) - 1]


def resident() -> int:
    """Resident memory of this process in bytes."""
    return _status("VmRSS")


def peak_resident() -> int:
    """The most it has been since `reset_peak_resident`."""
    return _status("VmHWM")


def reset_peak_resident() -> None:
    """Begin a new peak (proc(5), /proc/[pid]/clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
