"""What a simulated cell costs, against its two steps alone on `FakeTensorMode` as it comes.

The cell builds the model, watches the steps and analyses them; the bare steps do none of that.

Both run in turn in one process, and their CPU time is compared: it is one thread's work, and a busy
neighbour stretches wall time. A neighbour on the same core's caches stretches CPU time too: each
cell is held against the bare steps just before it, and the median of these ratios is taken.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from profiler.bench.cuda.semantics import semantics
from profiler.bench.subject_trace import batch_values
from profiler.execute import run
from profiler.hardware import devices
from profiler.record import Record
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build
from profiler.subject.workloads.train import TrainStep, Unwatched
from profiler.trace import Trace

SPEC = RunSpec(model="llama-3.2-3b", method="lora:r=32", batch_size=4, seq_len=512, device="l40s")
DEEP = RunSpec(model="llama-3.1-405b", method="lora:r=32", seq_len=512, device="h100")
#: MemTracker raises on frozen parameters, and counts the bytes of storages: a CPU's.
TRACKED = RunSpec(
    model="llama-3.2-3b",
    method="full",
    stack="script",
    batch_size=4,
    seq_len=512,
    device="sim:cpu",
)
ROUNDS = 7


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # waiting threads would count as work


def seconds(work: Callable[[], Any]) -> float:
    """CPU time of something."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(above: list[float], below: list[float]) -> float:
    """The median of the ratios of pairs."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def bare_steps() -> float:
    """Seconds of two steps under FakeTensorMode alone; building is not counted."""
    cell = resolve(SPEC)
    subject = build(cell)
    assert subject.building is not None
    mode = subject.building.mode
    trace = Trace(cuda=True, source="simulated")
    with semantics(devices.device(SPEC.device), cell.spec, trace):
        batch = {
            name: mode.from_tensor(value)
            for name, value in batch_values(subject, cell.spec).items()
            if name != "attention_mask"  # without known values a mask would be materialised
        }
        step = TrainStep(subject, cell.spec, batch, cuda=True)
        with mode:
            return seconds(lambda: step(Unwatched())) + seconds(lambda: step(Unwatched()))


def answered(spec: RunSpec, **how: Any) -> Record:
    record = run(spec, **how)
    assert record.status in ("ok", "oom"), record.error
    return record


def test_a_cell_costs_less_than_its_bare_steps(benchmark: Any) -> None:
    assert answered(SPEC, full_trace=True).traced == "whole: asked for"
    assert answered(SPEC).traced == "by repetition of layers"  # imports are nobody's cost
    bare: list[float] = []
    whole: list[float] = []
    repeated: list[float] = []
    for _ in range(ROUNDS):
        bare.append(bare_steps())
        whole.append(seconds(partial(answered, SPEC, full_trace=True)))
        repeated.append(seconds(partial(answered, SPEC)))
    figures = {
        "whole_cell_over_bare_steps": ratio(whole, bare),
        "repeated_cell_over_bare_steps": ratio(repeated, bare),
    }
    print(figures, f"of the least {min(whole) / min(bare):.3f}, {min(repeated) / min(bare):.3f}")
    benchmark.extra_info.update(figures)
    benchmark.pedantic(run, args=(SPEC,), rounds=1)
    assert figures["whole_cell_over_bare_steps"] <= 1.0
    assert figures["repeated_cell_over_bare_steps"] <= 0.5


def test_a_deep_model_costs_a_few_times_a_shallow_one(benchmark: Any) -> None:
    """126 layers against 16 of the same width, all of which are run."""
    shallow = DEEP.replace(model_override=("num_hidden_layers=16",))
    assert answered(DEEP).traced == "by repetition of layers"
    answered(shallow, full_trace=True)
    deep: list[float] = []
    whole: list[float] = []
    for _ in range(ROUNDS):
        whole.append(seconds(partial(answered, shallow, full_trace=True)))
        deep.append(seconds(partial(answered, DEEP)))
    figure = ratio(deep, whole)
    print(f"126 layers over 16: {figure:.3f}, of the least {min(deep) / min(whole):.3f}")
    benchmark.extra_info["repeated_126_layers_over_whole_16"] = figure
    benchmark.pedantic(run, args=(DEEP,), rounds=1)
    assert figure <= 2


def tracked_steps(peaks: list[int]) -> float:
    """Seconds of the same two steps under torch's own tracker; its peak is put into `peaks`."""
    cell = resolve(TRACKED)
    subject = build(cell)
    assert subject.building is not None
    mode = subject.building.mode
    batch = {
        name: mode.from_tensor(value) for name, value in batch_values(subject, cell.spec).items()
    }
    # The model drops a mask of ones if it sees its values, and under this tracker it cannot. It is
    # there all the same.
    mask = batch.pop("attention_mask")
    step = TrainStep(subject, cell.spec, batch, cuda=False)
    tracker = MemTracker()

    def steps() -> None:
        with mode:
            tracker.track_external(subject.model, step.optimizer, mask, *batch.values())
            with tracker:
                step(Unwatched())
                tracker.reset_mod_stats()
                step(Unwatched())

    spent = seconds(steps)
    (peak,) = (each["Total"] for each in tracker.get_tracker_snapshot("peak").values())
    peaks.append(peak)
    return spent


def test_a_cell_costs_a_tenth_of_torchs_tracker_and_sees_the_same_peak(benchmark: Any) -> None:
    whole = answered(TRACKED, full_trace=True)
    assert answered(TRACKED).memory == whole.memory
    theirs: list[float] = []
    ours: list[float] = []
    peaks: list[int] = []
    for _ in range(3):
        theirs.append(tracked_steps(peaks))
        ours.append(seconds(partial(answered, TRACKED)))
    figure = ratio(theirs, ours)
    print(f"MemTracker over a cell: {figure:.2f}, of the least {min(theirs) / min(ours):.2f}")
    benchmark.extra_info["mem_tracker_over_cell"] = figure
    benchmark.pedantic(run, args=(TRACKED,), rounds=1)
    assert set(peaks) == {whole.memory.peak_allocated}
    assert figure >= 10
