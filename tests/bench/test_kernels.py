"""Kernels of a step that is really run here, and of what a GPU's profile looks like."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import write

from profiler.analysis import flops
from profiler.bench import kernels
from profiler.bench.kernels import Profile, attribute, into
from profiler.bench.measured import prepare, track
from profiler.record import Kernel, Time
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.workloads.train import Unwatched
from profiler.trace import PHASES, Op, Trace


@pytest.fixture(scope="module", params=["opt", "llama"])
def profiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trace, Profile]:
    """A step large enough that its kernels take most of it."""
    models = write(Path(tmp_path_factory.mktemp("models")))
    wide = "ffn_dim=2048" if request.param == "opt" else "intermediate_size=2048"
    cell = resolve(
        RunSpec(
            model=models[request.param],
            model_override=("hidden_size=512", wide)
            + (("word_embed_proj_dim=512",) if request.param == "opt" else ()),
            method="lora",
            seq_len=64,
            batch_size=2,
            weights_dtype="float32",
            device="cpu",
        )
    )
    subject, step = prepare(cell)
    trace = track(subject, step)
    step(Unwatched())
    return trace, kernels.profile(step, trace, "cpu")


def test_each_op_of_the_trace_is_a_kernel(profiled: tuple[Trace, Profile]) -> None:
    trace, profile = profiled
    ops = Counter((op.phase, op.name) for op in trace.ops if op.step == 1 and op.flops)
    seen = {(kernel.phase, kernel.op): kernel.count for kernel in profile.kernels}
    assert ops
    assert {key: seen.get(key) for key in ops} == ops
    counted = flops.analyse(trace)
    done = sum(kernel.flops for kernel in profile.kernels)
    assert done == counted.total
    assert all(kernel.name.replace("::", ".") == kernel.op for kernel in profile.kernels)


def test_kernels_and_what_is_around_them_make_the_phases(profiled: tuple[Trace, Profile]) -> None:
    _, profile = profiled
    assert set(profile.phases) == set(PHASES)
    for phase, whole in profile.phases.items():
        busy = sum(kernel.seconds for kernel in profile.kernels if kernel.phase == phase)
        assert 0 < busy < whole
        of_modules = sum(row.get(phase, 0.0) for row in profile.modules.values())
        assert of_modules == pytest.approx(busy)
    busy = sum(kernel.seconds for kernel in profile.kernels)
    assert busy > sum(profile.phases.values()) / 2


def test_time_is_of_the_modules_that_work(profiled: tuple[Trace, Profile]) -> None:
    """The feed-forward is four times as wide as the rest."""
    trace, profile = profiled
    worked = {path for path, row in flops.analyse(trace).modules.items() if "forward" in row}
    timed = {path for path, row in profile.modules.items() if row.get("forward")}
    assert worked <= timed
    sums: Counter[bool] = Counter()
    for path, row in profile.modules.items():
        sums["mlp" in path or ".fc" in path] += row.get("forward", 0.0)  # type: ignore[assignment]
    assert sums[True] > sums[False]


def test_the_bare_phases_are_kernels_and_the_rest(profiled: tuple[Trace, Profile]) -> None:
    _, profile = profiled
    phases = {phase: seconds / 1.25 for phase, seconds in profile.phases.items()}
    bare = Time(source="measured", step=sum(phases.values()), phases=phases, tokens_per_second=1.0)
    time = into(bare, profile, on_device=False)
    for phase, seconds in phases.items():
        busy = sum(kernel.seconds for kernel in time.kernels if kernel.phase == phase)
        assert busy + time.outside_kernels[phase] == pytest.approx(seconds, rel=1e-9)
        assert time.outside_kernels[phase] > 0
    assert time.profiled == profile.phases
    assert bare.kernels == []


@given(
    phases=st.fixed_dictionaries({phase: st.just(0.0) | st.floats(1e-9, 10) for phase in PHASES}),
    profiled=st.fixed_dictionaries({phase: st.just(0.0) | st.floats(1e-9, 10) for phase in PHASES}),
    busy=st.fixed_dictionaries({phase: st.just(0.0) | st.floats(1e-9, 10) for phase in PHASES}),
    on_device=st.booleans(),
)
def test_they_sum_to_the_phases_whatever_was_measured(
    phases: dict[str, float],
    profiled: dict[str, float],
    busy: dict[str, float],
    on_device: bool,
) -> None:
    """Also where a device's kernels took longer than the bare phase."""
    found = [
        Kernel(name="k", op="k", phase=phase, count=1, seconds=seconds, flops=1, bytes=2)
        for phase, seconds in busy.items()
        if on_device or seconds <= profiled[phase]
    ]
    modules = {"m": {kernel.phase: kernel.seconds for kernel in found}}
    profile = Profile(kernels=found, modules=modules, phases=profiled)
    bare = Time(source="measured", step=1.0, phases=phases, tokens_per_second=1.0)
    time = into(bare, profile, on_device=on_device)
    for phase, seconds in phases.items():
        kernel = sum(one.seconds for one in time.kernels if one.phase == phase)
        assert time.outside_kernels[phase] >= 0
        assert kernel + time.outside_kernels[phase] == pytest.approx(seconds, abs=1e-12)
        assert time.modules["m"].get(phase, 0.0) == pytest.approx(kernel)
    if on_device:
        before = {kernel.phase: kernel.seconds for kernel in found}
        assert all(one.seconds <= before[one.phase] for one in time.kernels)


def call(name: str, start: float, *children: Any, took: float = 10.0, **launched: float) -> Any:
    event = SimpleNamespace(
        name=name,
        device_type=torch.autograd.DeviceType.CPU,
        time_range=SimpleNamespace(start=start, end=start + took),
        cpu_time_total=took,
        cpu_parent=None,
        cpu_children=list(children),
        kernels=[SimpleNamespace(name=n, duration=d) for n, d in launched.items()],
    )
    for child in children:
        child.cpu_parent = event
    return event


def flat(event: Any) -> list[Any]:
    return [event, *(inner for child in event.cpu_children for inner in flat(child))]


def test_a_devices_kernels_stand_under_the_ops_that_launched_them() -> None:
    """By when they were launched, not by when the device came to them."""
    roots = [
        call("profiler.phase.forward", 0),
        call("aten::linear", 1, call("aten::mm", 2, call("aten::split", 3, join=2.0), gemm=30.0)),
        call("aten::to", 20, call("aten::copy_", 21, copy=5.0)),
        call("profiler.phase.backward", 40),
        call("MmBackward0", 41, call("aten::mm", 42, gemm=50.0)),
        call("Optimizer.step#SGD.step", 55, **{"Optimizer.step#SGD.step": 9.0}),
        call("profiler.phase.end", 60),
    ]
    events = [event for root in roots for event in flat(root)]
    events.append(SimpleNamespace(name="gemm", device_type=torch.autograd.DeviceType.CUDA))
    ops = [
        Op("aten.mm", "forward", "layer", 1, 600, 60, "bfloat16", False),
        Op("aten.mm", "backward", "layer", 1, 1200, 90, "bfloat16", False),
    ]
    found = attribute(events, ops, on_device=True)
    rows = {(one.phase, one.op, one.name): one for one in found.kernels}
    gemm, join = (rows["forward", "aten.mm", name] for name in ("gemm", "join"))
    assert (gemm.seconds, gemm.flops, gemm.bytes, gemm.count) == (30e-6, 600, 60, 1)
    assert gemm.intensity == 10
    assert (join.seconds, join.flops, join.intensity) == (2e-6, 0, None)
    assert rows["forward", "aten.copy_", "copy"].seconds == 5e-6  # of no op of the trace
    assert rows["backward", "aten.mm", "gemm"].seconds == 50e-6
    assert found.modules["layer"] == pytest.approx({"forward": 32e-6, "backward": 50e-6})
    assert len(rows) == 4  # an annotation is no kernel


def test_checkpointing_keeps_each_time_at_its_module(tmp_path: Path) -> None:
    """Recomputation stops in the midst of a call, which the profiler sees and no trace does."""
    cell = resolve(
        RunSpec(
            model=write(tmp_path)["llama"],
            model_override=("num_hidden_layers=4",),
            method="lora",
            seq_len=16,
            device="cpu",
            checkpointing="non-reentrant",
        )
    )
    subject, step = prepare(cell)
    trace = track(subject, step)
    profile = kernels.profile(step, trace, "cpu")
    counted = flops.analyse(trace)
    assert sum(kernel.flops for kernel in profile.kernels) == counted.total
    for path, row in counted.modules.items():
        for phase in ("forward", "backward"):
            assert not row.get(phase) or profile.modules[path][phase] > 0


def test_calls_and_ops_that_part_come_together_again() -> None:
    def ran(*names: str) -> list[Any]:
        return [call(f"aten::{name}", place) for place, name in enumerate(names)]

    def traced(*names: str) -> list[Op]:
        return [
            Op(f"aten.{name}", "forward", str(place), 1, 0, 0, "", False)
            for place, name in enumerate(names)
        ]

    def modules(calls: list[Any], ops: list[Op]) -> list[str | None]:
        return [None if op is None else op.module for op in kernels._paired(calls, ops)]

    both = ("mm", "add", "mul", "sum", "mm", "exp", "mm")
    every = [str(place) for place in range(7)]
    assert modules(ran(*both), traced(*both)) == every
    more = ran(*both[:2], "mm", *both[2:])
    assert modules(more, traced(*both)) == [*every[:2], None, *every[2:]]
    assert modules(ran(*both[:2], *both[3:]), traced(*both)) == [*every[:2], *every[3:]]
    assert modules(ran("mm", "add_", *both[2:]), traced(*both)) == every
    assert modules(ran(*both, "mm"), traced(*both)) == [*every, None]
    assert modules(ran("cos", *both), traced(*both)) == [None, *every]


def test_calls_beyond_the_trace_have_time_and_no_work() -> None:
    roots = [call("profiler.phase.forward", 0), call("aten::mm", 1), call("aten::mm", 20)]
    roots.append(call("profiler.phase.end", 60))
    ops = [Op("aten.mm", "forward", "layer", 1, 600, 60, "bfloat16", False)]
    (kernel,) = attribute(roots, ops, on_device=False).kernels
    assert (kernel.count, kernel.flops, kernel.bytes) == (2, 600, 60)
    assert kernel.seconds == pytest.approx(20e-6)


def test_a_kernel_is_read_back_as_it_was_written() -> None:
    kernel = Kernel(name="k", op="k", phase="forward", count=1, seconds=1.0, flops=6, bytes=4)
    written = kernel.model_dump(mode="json")
    assert written["intensity"] == 1.5
    assert Kernel.model_validate(written) == kernel
    assert Kernel.model_validate(written).model_dump(mode="json") == written
