"""The simulated bench: the libraries' own step on fake tensors, as a named GPU would run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from profiler.bench import fakes
from profiler.bench.categories import decide
from profiler.bench.cuda import semantics as cuda
from profiler.bench.modules import ModulePaths
from profiler.bench.shadows import Shadows
from profiler.bench.tracker import Rules, StorageTracker
from profiler.hardware.devices import Device
from profiler.spec import RunSpec
from profiler.subject import optimizers
from profiler.subject.quantization import quant_state_tensors
from profiler.subject.subject import Subject
from profiler.subject.workloads.train import TrainStep
from profiler.trace import Trace

#: Categories that a later role may take over; what was registered before the steps stays.
_WEAK = frozenset({"kv_cache"})


def simulate(subject: Subject, spec: RunSpec, device: Device | None) -> Trace:
    """Run a warm-up step and `spec.steps` further ones on fake tensors.

    Args:
        subject: a model on the meta device; it is filled with fake tensors here.
        device: the GPU whose choices are made, None for this CPU.
    """
    trace = Trace(cuda=device is not None, source="simulated")
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = subject.model
    torch.manual_seed(spec.seed)
    with ExitStack() as stack:
        fakes.fill(model, mode)
        shadows = Shadows()
        rules = Rules()
        if device is not None:
            rules = stack.enter_context(cuda.semantics(device, spec, trace))
        paths = ModulePaths(model)
        tracker = StorageTracker(trace, paths, rules, shadows)
        _register(tracker, subject)
        batch = _inputs(subject, spec, mode, shadows)
        for name, tensor in batch.items():
            tracker.register(tensor, "inputs", "", name)
        step = TrainStep(model, spec, batch, cuda=device is not None)
        optimizers.warm_up(step.optimizer)
        _fake_maps(step.optimizer, mode, tracker)
        stack.enter_context(_values_are_known())
        if device is not None:
            stack.enter_context(cuda.paged_state(tracker))
        stack.enter_context(paths.watching())
        stack.enter_context(mode)
        stack.enter_context(tracker)
        probe = TraceProbe(tracker, step)
        for number in range(spec.steps + 1):
            tracker.step = number
            step(probe)
        tracker.close()
    decide(tracker)
    return trace


class TraceProbe:
    """Tells the tracker what the step says (`profiler.subject.workloads.train.Probe`)."""

    def __init__(self, tracker: StorageTracker, step: TrainStep) -> None:
        self.tracker = tracker
        self.step = step

    def phase(self, name: str) -> None:
        self.tracker.phase(name)

    def forward_done(self, outputs: Any) -> None:
        for tensor in _tensors(getattr(outputs, "past_key_values", None)):
            self.tracker.role(tensor, "kv_cache", frozenset())

    def backward_done(self) -> None:
        for parameter in self.step.model.parameters():
            if parameter.grad is not None:
                module = self.tracker.paths.of_parameter(parameter)
                self.tracker.role(parameter.grad, "gradients", _WEAK, module)

    def optimizer_done(self) -> None:
        for parameter, state in self.step.optimizer.state.items():
            module = self.tracker.paths.of_parameter(parameter)
            for tensor in _tensors(state):
                self.tracker.role(tensor, "optimizer_state", _WEAK, module)


def _register(tracker: StorageTracker, subject: Subject) -> None:
    """Count what is in memory before the first step, module by module."""
    seen: set[int] = set()
    for path, module in subject.model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{path}.{name}" if path else name
            added = full in subject.adapter_names
            category = "adapter_parameters" if added else "base_parameters"
            tracker.register(parameter, category, path, "load")
            for _, tensor, _ in quant_state_tensors(parameter):
                tracker.register(tensor, "quantization_state", path, "quantize")
        for buffer in module._buffers.values():
            if buffer is not None:
                tracker.register(buffer, "buffers", path, "load")
        for _, _, tensor in fakes._attributes(module):
            if isinstance(tensor, torch._subclasses.FakeTensor):
                tracker.register(tensor, "buffers", path, "load")


def _inputs(
    subject: Subject, spec: RunSpec, mode: FakeTensorMode, shadows: Shadows
) -> dict[str, torch.Tensor]:
    """Token ids, mask and labels of shape (batch_size, seq_len), int64, with known values."""
    generator = torch.Generator().manual_seed(spec.seed)
    shape = (spec.batch_size, spec.seq_len)
    ids = torch.randint(subject.vocab_size, shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.int64)
    if spec.padded:
        mask[:, spec.seq_len - padding(spec) :] = 0
    labels = ids.masked_fill(mask == 0, -100)
    batch = {}
    for name, value in (("input_ids", ids), ("attention_mask", mask), ("labels", labels)):
        with mode:
            batch[name] = torch.empty(shape, dtype=torch.int64)
        shadows.attach(batch[name], value)
    return batch


def padding(spec: RunSpec) -> int:
    """Padded positions of each sequence: at least one, and at least one token is left."""
    return min(max(1, round(spec.seq_len * spec.pad_fraction)), spec.seq_len - 1)


def _fake_maps(
    optimizer: torch.optim.Optimizer, mode: FakeTensorMode, tracker: StorageTracker
) -> None:
    """An 8-bit optimizer's quantisation maps, which its class shares, as fakes of its own."""
    maps = getattr(optimizer, "name2qmap", None)
    if maps:
        fake = {name: mode.from_tensor(tensor) for name, tensor in maps.items()}
        optimizer.name2qmap = fake
        for tensor in fake.values():
            tracker.register(tensor, "optimizer_state", "", "quantization_map")


@contextmanager
def _values_are_known() -> Iterator[None]:
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


def _tensors(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Tensors inside containers and plain objects."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, depth - 1)
    elif depth and hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)):
        for item in vars(value).values():
            yield from _tensors(item, depth - 1)
