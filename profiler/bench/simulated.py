"""The simulated bench: the libraries' own step on fake tensors, as a named GPU would run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from profiler.bench import cpu, products, sparse
from profiler.bench.categories import decide
from profiler.bench.cuda import semantics as cuda
from profiler.bench.load import Load
from profiler.bench.modules import ModulePaths
from profiler.bench.repetition.log import OpLog
from profiler.bench.subject_trace import TraceProbe, batch_values, register, register_maps
from profiler.bench.tracker import Rules, StorageTracker
from profiler.hardware.devices import Device
from profiler.spec import RunSpec
from profiler.subject import fakes, optimizers
from profiler.subject.fake_dispatch import FakeDispatch
from profiler.subject.optimizers import uses_maps
from profiler.subject.shadows import Shadows
from profiler.subject.subject import Subject
from profiler.subject.workloads.train import TrainStep
from profiler.trace import Trace

#: Entries of torch's cache of what ops give on fake tensors (some 2 KB each) that are kept from
#: cell to cell; each new length or batch adds some hundreds.
CACHED = 50_000


def simulate(
    subject: Subject,
    spec: RunSpec,
    device: Device | None,
    load: Load | None = None,
    *,
    drive: Callable[[Feed], None] | None = None,
    log: OpLog | None = None,
    write: Callable[[StorageTracker], None] | None = None,
) -> Trace:
    """Run a warm-up step and `spec.steps` further ones on fake tensors.

    Args:
        subject: a model of fake tensors.
        device: the GPU whose choices are made, None for this CPU.
        load: what building the subject allocated, to go on from; None begins with what is left.
        drive: runs other steps instead, each with a batch of its own.
        log: is filled with what the steps' ops touch.
        write: writes the steps' part of the trace instead of running them, categories included.
    """
    trace = Trace(cuda=device is not None, source="simulated")
    assert spec.optimizer is not None
    trace.approximations.extend(optimizers.approximations(spec.optimizer, cuda=trace.cuda))
    assert subject.building is not None
    mode, shadows = subject.building.mode, subject.building.shadows
    model = subject.model
    torch.manual_seed(spec.seed)
    with ExitStack() as stack:
        rules = Rules(replace={**cpu.REPLACE, **sparse.REPLACE}, check=products.CHECK)
        if device is not None:
            rules = stack.enter_context(cuda.semantics(device, spec, trace))
            cuda.leave_packed(model)
        else:
            stack.enter_context(fakes.int8_on_cpu())
        paths = ModulePaths(model)
        tracker = StorageTracker(trace, paths, rules, shadows, FakeDispatch(mode))
        if load is not None:
            load.hand_over(tracker)
        register(tracker, subject)
        if load is not None:
            tracker.phase("setup")
        batch = {} if drive is not None else _inputs(batch_values(subject, spec), mode, shadows)
        for name, tensor in batch.items():
            tracker.register(tensor, "inputs", "", name)
        step = TrainStep(subject, spec, batch, cuda=device is not None)
        optimizers.warm_up(step.optimizer)
        _fake_maps(step.optimizer, mode)
        register_maps(tracker, step.optimizer)
        stack.enter_context(values_are_known())
        if device is not None:
            stack.enter_context(cuda.paged_state(tracker))
        stack.enter_context(paths.watching())
        stack.enter_context(mode)
        stack.enter_context(tracker)
        probe = TraceProbe(tracker, step)
        shadows.unknown = 0  # what was guessed while the method was built shapes nothing
        if drive is not None:
            drive(Feed(tracker, step, probe, partial(_inputs, mode=mode, shadows=shadows)))
        elif write is not None:
            write(tracker)
            tracker.step = spec.steps or 1
        else:
            if log is not None:
                tracker.keep_log(log)
            assert spec.steps is not None
            step.before()
            for number in range(spec.steps + 1):
                tracker.step = number
                step(probe)
        tracker.close()
        if shadows.unknown:
            trace.approximations.append(
                "The step asks for values that a simulation does not have: numbers were taken for "
                "0, masks for all ones."
            )
    decide(tracker)
    if len(FakeTensorMode.cache) > CACHED:
        FakeTensorMode.cache_clear()
    return trace


class Feed:
    """Runs steps that each have a batch of their own, as a data loader gives them.

    A loop over a loader binds the new batch to the old one's name before anything is sent to the
    device, so that the old batch is gone by then. `Trainer` takes the next batch from a loader that
    has sent it to the device already (`Trainer.get_batch_samples`, `DataLoaderShard.__iter__` of
    accelerate/data_loader.py): there both are alive for a moment.

    Attributes:
        tracker: what is known of the steps so far.
    """

    def __init__(
        self,
        tracker: StorageTracker,
        step: TrainStep,
        probe: TraceProbe,
        send: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    ) -> None:
        self.tracker = tracker
        self._step = step
        self._probe = probe
        self._send = send

    def __call__(self, make: Callable[[], dict[str, torch.Tensor]]) -> None:
        """Run the next step, the first of which is number 1, on a batch of the values that `make`
        gives."""
        self.tracker.step += 1
        self.tracker.phase("forward")
        if not self._step.loads_ahead:
            self._step.batch.clear()
        with _disable_current_modes():
            batch = self._send(make())
        for name, tensor in batch.items():
            self.tracker.register(tensor, "inputs", "", name)
        self._step.batch = batch
        del batch
        if self.tracker.step == 1:
            self._step.before()
        self._step(self._probe)


def _inputs(
    values: dict[str, torch.Tensor], mode: FakeTensorMode, shadows: Shadows
) -> dict[str, torch.Tensor]:
    """A batch as fakes whose values are known."""
    batch = {}
    for name, value in values.items():
        with mode:
            batch[name] = torch.empty(value.shape, dtype=value.dtype)
        shadows.attach(batch[name], value)
    return batch


def _fake_maps(optimizer: torch.optim.Optimizer, mode: FakeTensorMode) -> None:
    """An 8-bit optimizer's quantisation maps, which its class shares, as fakes of its own."""
    if uses_maps(optimizer):
        maps = optimizer.name2qmap.items()
        optimizer.name2qmap = {name: mode.from_tensor(tensor) for name, tensor in maps}


@contextmanager
def values_are_known() -> Iterator[None]:
    """Let `transformers` look at values, which it does not with tensors it takes for traced.

    The shadows answer. (transformers/utils/import_utils.py, `is_tracing`, which modules import by
    name.)
    """
    import sys

    replaced = []
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers") and "is_tracing" in vars(module or {}):
            replaced.append((module, vars(module)["is_tracing"]))
            vars(module)["is_tracing"] = lambda tensor=None: False
    try:
        yield
    finally:
        for module, function in replaced:
            vars(module)["is_tracing"] = function
