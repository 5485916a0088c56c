"""What both benches tell the tracker of a subject and its step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from profiler.bench.tracker import StorageTracker
from profiler.spec import RunSpec
from profiler.subject.attributes import attributes
from profiler.subject.optimizers import maps, states
from profiler.subject.quantization import quant_state_tensors
from profiler.subject.subject import Subject
from profiler.subject.workloads.train import TrainStep

#: Categories that a later role may take over; what was registered before the steps stays.
_WEAK = frozenset({"kv_cache"})


class TraceProbe:
    """Tells the tracker what the step says (`profiler.subject.workloads.train.Probe`)."""

    def __init__(self, tracker: StorageTracker, step: TrainStep) -> None:
        self.tracker = tracker
        self.step = step

    def phase(self, name: str) -> None:
        self.tracker.phase(name)

    def forward_done(self, outputs: Any) -> None:
        for tensor in tensors(getattr(outputs, "past_key_values", None)):
            self.tracker.role(tensor, "kv_cache", frozenset())

    def backward_done(self) -> None:
        for parameter in self.step.model.parameters():
            if parameter.grad is not None:
                module = self.tracker.paths.of_parameter(parameter)
                self.tracker.role(parameter.grad, "gradients", _WEAK, module)

    def optimizer_done(self) -> None:
        for parameter, state in states(self.step.optimizer):
            module = self.tracker.paths.of_parameter(parameter)
            for tensor in tensors(state):
                self.tracker.role(tensor, "optimizer_state", _WEAK, module)
        for tensor in self.step.subject.method.state(self.step.model):
            self.tracker.role(tensor, "optimizer_state", _WEAK)


def register(tracker: StorageTracker, subject: Subject) -> None:
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
        for _, _, tensor in attributes(module):
            tracker.register(tensor, "buffers", path, "load")


def register_maps(tracker: StorageTracker, optimizer: torch.optim.Optimizer) -> None:
    """Count an 8-bit optimizer's quantisation maps (`profiler.subject.optimizers.warm_up`)."""
    for tensor in maps(optimizer, cuda=tracker.trace.cuda):
        tracker.register(tensor, "optimizer_state", "", "quantization_map")


def batch_values(subject: Subject, spec: RunSpec) -> dict[str, torch.Tensor]:
    """Token ids, mask and labels of shape (batch_size, seq_len), int64, from the spec's seed; and
    what the method asks for."""
    generator = torch.Generator().manual_seed(spec.seed)
    shape = (spec.batch_size, spec.seq_len)
    ids = torch.randint(subject.vocab_size, shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.int64)
    if spec.padded:
        mask[:, spec.seq_len - padding(spec) :] = 0
    labels = ids.masked_fill(mask == 0, -100)
    more = subject.method.inputs(subject.config, spec.batch_size)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, **more}


def padding(spec: RunSpec) -> int:
    """Padded positions of each sequence: at least one, and two tokens are left to predict from."""
    return min(max(1, round(spec.seq_len * spec.pad_fraction)), spec.seq_len - 2)


def tensors(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Tensors inside containers and plain objects."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from tensors(item, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item, depth - 1)
    elif depth and hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)):
        for item in vars(value).values():
            yield from tensors(item, depth - 1)
