"""A user's own training step, simulated: their model, optimizer and loop on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from profiler.analysis import again, flops, out_of_memory, step_time
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench import cpu, products, sparse
from profiler.bench.categories import decide
from profiler.bench.cuda import semantics as cuda
from profiler.bench.modules import ModulePaths
from profiler.bench.simulated import values_are_known
from profiler.bench.tracker import Rules
from profiler.environment import environment
from profiler.errors import UsageError
from profiler.hardware import devices
from profiler.hardware.devices import Device
from profiler.integrations import described
from profiler.integrations.phases import Phases, unwrapped
from profiler.integrations.swapping import LiveFakes, swapped
from profiler.integrations.watching import LiveTracker, Roles, register_live
from profiler.record import Fits, Params, Record
from profiler.spec import RunSpec
from profiler.subject import fakes as subject_fakes
from profiler.subject import optimizers
from profiler.subject.fake_build import FakeBuild
from profiler.subject.fake_dispatch import FakeDispatch
from profiler.trace import Trace

_NO_LOAD = (
    "What loading the model left in the allocator's cache is not modelled: the steps begin with "
    "what is alive, packed tightly."
)
_FOUND = (
    "Phases were found by the backward and the optimizer's step; what follows a backward counts as "
    "optimizer until the next forward or step."
)
_AS_IF = (
    "The model is simulated with its types and kernels as they are, on another device; choices "
    "that the loop itself makes by device are those of this machine."
)
_NO_VALUES = (
    "The step asks for values that a simulation does not have: numbers were taken for 0, masks for "
    "all ones."
)


def profile(
    step: Callable[[], Any],
    *,
    model: torch.nn.Module,
    optimizer: Any = None,
    device: str = "a100-80gb",
    steps: int = 1,
    vram: str | None = None,
    alloc_conf: str = "",
    sdpa_backend: str = "auto",
) -> Record:
    """Simulate a training step of a live model, without touching the model.

    `step()` is called `steps + 1` times, the first time to warm up. It does one training step:
    forward, backward, `optimizer.step()`, `zero_grad()`. Meanwhile the parameters, buffers,
    gradients and states of `model` and `optimizer` are fake tensors; afterwards they are the very
    ones that they were. Random numbers' states, flags and the optimizer's groups are given back,
    too. Not so what else `step()` changes: a counter, an iterator that it advances, a list that it
    appends the (fake) loss to.

    Real tensors that `step()` uses beside them, the batch above all, become fakes of the same size
    when an op is given them, and count as inputs that are on the device.

    Args:
        model: the module that `step()` calls.
        optimizer: whose `step` it calls; it may be wrapped by accelerate. None if it has none, or
            builds one itself.
        device: a GPU's name, or "sim:cpu" for this machine's CPU.
        steps: steps that the record is of.
        vram: as `RunSpec.vram`; alloc_conf: as `RunSpec.alloc_conf`; sdpa_backend: as
            `RunSpec.sdpa_backend`.

    Raises:
        UsageError: an unknown or measured device, a compiled or distributed model, a step that
            writes to real tensors, takes gradients of them, or makes tensors whose size depends on
            values (AdaLoRA's choice of ranks). What `step()` raises is raised as it
            is; the model is given back all the same.
    """
    if device in devices.MEASURED:
        raise UsageError(
            f"profile simulates, and {device} is measured; name a GPU or sim:cpu, or use "
            "profiler.watch around the loop"
        )
    if steps < 1:
        raise UsageError(f"steps must be at least 1, not {steps}")
    optimizer = unwrapped(optimizer)
    params = described.counts(model)
    spec = described.spec(
        model,
        optimizer,
        device,
        vram=vram,
        alloc_conf=alloc_conf,
        sdpa_backend=sdpa_backend,
        steps=steps,
    )
    card = again.simulated_device(spec)
    AllocConf.parse(alloc_conf)
    record = Record(
        id=described.identity(spec),
        status="failed",
        source="simulated",
        spec=spec,
        params=params,
        environment=environment(device),
    )
    trace, tokens = _trace(step, model, optimizer, card, spec, params)
    level = again.levels(trace, spec)
    record.memory = again.analyse(trace, level, spec)
    record.flops = flops.analyse(trace)
    record.approximations = [*trace.approximations, *flops.approximations(trace), _FOUND]
    record.status = "ok"
    if card is None:
        return record
    record.approximations += [_NO_LOAD, _AS_IF]
    record.time = step_time.predict(trace, card, tokens)
    record.approximations.append(step_time.approximation(card))
    needed = record.memory.device_total
    assert needed is not None
    record.fits = Fits(capacity=card.memory_bytes, headroom=card.memory_bytes - needed)
    if level.oom is not None:
        record.status = "oom"
        conf = AllocConf.parse(alloc_conf)
        record.error = out_of_memory.of_trace(trace, level, conf, card.usable_bytes, needed)
    return record


def _trace(
    step: Callable[[], Any],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None,
    card: Device | None,
    spec: dict[str, Any],
    params: Params,
) -> tuple[Trace, int]:
    """The trace of a warm-up and the steps, and the positions that the first of them trains on."""
    trace = Trace(cuda=card is not None, source="simulated")
    building = FakeBuild(cuda=card is not None)
    mode, shadows = building.mode, building.shadows
    added = described.adapter_names(model)
    with ExitStack() as stack:
        rules = Rules(replace={**cpu.REPLACE, **sparse.REPLACE}, check=products.CHECK)
        stack.enter_context(swapped(model, optimizer, LiveFakes(mode, shadows)))
        fakes = LiveFakes(mode, shadows)  # for what the loop brings
        if card is None:
            stack.enter_context(subject_fakes.int8_on_cpu())
        else:
            rules = stack.enter_context(cuda.semantics(card, _as_run_spec(spec), trace))
            cuda.leave_packed(model)
            stack.enter_context(_choices_of_cuda(optimizer))
        if optimizer is not None:
            optimizers.warm_up(optimizer)
        paths = ModulePaths(model)
        tracker = LiveTracker(trace, paths, rules, shadows, FakeDispatch(mode))
        tracker.fakes = fakes
        register_live(tracker, model, added, params, optimizer)
        roles = Roles(tracker, model)
        stack.enter_context(values_are_known())
        if card is not None:
            stack.enter_context(cuda.paged_state(tracker))
        phases = tracker.phases = stack.enter_context(
            Phases(model, roles, optimizer=optimizer, lazy=True)
        )
        stack.enter_context(paths.watching())
        stack.enter_context(mode)
        stack.enter_context(tracker)
        for number in range(spec["steps"] + 1):
            tracker.step = number
            phases.begin_step()
            _run(step)
        tracker.close()
    if shadows.unknown:
        trace.approximations.append(_NO_VALUES)
    decide(tracker)
    return trace, roles.tokens.get(1, 0)


def _run(step: Callable[[], Any]) -> None:
    try:
        step()
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UsageError(
            f"step() needs the values of tensors, which a simulation does not have ({error}); "
            "leave out of it what depends on them"
        ) from error


def _as_run_spec(spec: dict[str, Any]) -> RunSpec:
    """What the rules of a CUDA device ask a spec; autocast is ready, should the step enter one."""
    return RunSpec(
        model=spec["model"],
        quantization=spec["quantization"],
        autocast="bfloat16",
        sdpa_backend=spec["sdpa_backend"],
        device=spec["device"],
    )


@contextmanager
def _choices_of_cuda(optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """What torch chooses by the tensors' device, as on a CUDA device: foreach optimizers and
    clipping (torch/optim/optimizer.py, `_default_to_fused_or_foreach`; torch/nn/utils/clip_grad.py)
    and `torch.autocast("cuda")`."""
    for group in optimizer.param_groups if optimizer is not None else ():
        if "foreach" in group and group["foreach"] is None:
            group["foreach"] = not (group.get("fused") or group.get("differentiable"))
    clipping: Any = torch.nn.utils.clip_grad
    amp: Any = torch.amp.autocast_mode.autocast
    supported, made = clipping._has_foreach_support, amp.__init__

    def init(
        self: Any, device_type: str, dtype: torch.dtype | None = None, *rest: Any, **more: Any
    ) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.get_autocast_dtype("cuda")
        made(self, device_type, dtype, *rest, **more)

    clipping._has_foreach_support = lambda tensors, device: True
    amp.__init__ = init
    try:
        yield
    finally:
        clipping._has_foreach_support = supported
        amp.__init__ = made
