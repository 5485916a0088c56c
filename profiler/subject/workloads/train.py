"""The training step: forward, backward, clipping, optimizer; and which names stay bound meanwhile.

What a name still refers to is memory. The three loops are three functions rather than one with
flags, because the scopes themselves are what differs.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from profiler.spec import RunSpec
from profiler.subject import optimizers
from profiler.subject.stacks import STACKS
from profiler.subject.workloads.precision import Precision

if TYPE_CHECKING:
    import torch

    from profiler.subject.subject import Subject


class Probe(Protocol):
    """What a bench wants to know of a step. Every call may be empty."""

    def phase(self, name: str) -> None:
        """The step enters a phase."""

    def forward_done(self, outputs: Any) -> None:
        """A forward has returned; called while its outputs are bound."""

    def backward_done(self) -> None:
        """A backward has returned; gradients are in place."""

    def optimizer_done(self) -> None:
        """The optimizer has stepped; its state is in place."""


class Unwatched:
    """A probe that wants to know nothing: the step runs bare."""

    def phase(self, name: str) -> None:
        pass

    def forward_done(self, outputs: Any) -> None:
        pass

    def backward_done(self) -> None:
        pass

    def optimizer_done(self) -> None:
        pass


class Objective(Protocol):
    """Whose loss a step takes."""

    def forward(self, step: TrainStep) -> Any:
        """Run the model on the step's batch. What it returns has a `loss`."""

    def loss(self, step: TrainStep, outputs: Any) -> torch.Tensor:
        """The loss to differentiate, of one forward's outputs."""


class ModelLoss:
    """The model's own loss."""

    def forward(self, step: TrainStep) -> Any:
        if not step.counts_items:
            return step.model(**step.batch)
        count = step.batch["labels"].ne(-100).sum()
        return step.model(**step.batch, num_items_in_batch=count)

    def loss(self, step: TrainStep, outputs: Any) -> torch.Tensor:
        loss: torch.Tensor = outputs.loss
        return loss


class TrainStep:
    """One optimizer step of a model, again and again: `step(probe)`.

    Attributes:
        subject, model, optimizer: what is trained, and by what.
        count: optimizer steps that were taken.
        batch: keyword arguments of the forward, each of shape (batch_size, seq_len).
        loads_ahead: the next batch is on the device before the last one is dropped.
    """

    def __init__(
        self,
        subject: Subject,
        spec: RunSpec,
        batch: dict[str, torch.Tensor],
        *,
        cuda: bool,
    ) -> None:
        self.subject = subject
        self.model = model = subject.model
        self.batch = dict(batch)
        self.accumulation = spec.grad_accumulation
        self.max_norm = spec.grad_clip
        self.foreach = cuda
        assert spec.optimizer is not None
        stack = STACKS[spec.stack]
        groups = decay_groups(model) if stack.decay_groups else trained(model)
        self.optimizer = optimizers.build(spec.optimizer, model, groups, cuda=cuda)
        self.counts_items = stack.counts_items and accepts_loss_kwargs(model)
        self.precision = Precision(spec, stack, device_type(model))
        self.objective = _objective(spec, model, cuda=cuda)
        loop = spec.loop or stack.loop
        self._step = _LOOPS[loop]
        self.loads_ahead = loop == "trainer"
        self.count = 0
        self.outputs: Any = None
        self.loss: Any = None
        self._base_evaluation = spec.base_evaluation

    def __call__(self, probe: Probe) -> None:
        self._step(self, probe)

    def before(self) -> None:
        """What a run does before its first step (`RunSpec.base_evaluation`)."""
        if not self._base_evaluation:
            return
        import torch

        disabled = getattr(self.model, "disable_adapter", contextlib.nullcontext)
        self.model.eval()
        with torch.inference_mode(), disabled():
            self.model(**self.batch)
        self.model.train()

    def forward(self) -> Any:
        return self.precision.forward(functools.partial(self.objective.forward, self))

    def loss_of(self, outputs: Any) -> torch.Tensor:
        """The loss of one forward's outputs, over the accumulation's passes."""
        return self.scaled(self.objective.loss(self, outputs))

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss over the accumulation's passes; one divided by its item count is so already."""
        if self.accumulation == 1 or self.counts_items:
            return loss
        return loss / self.accumulation

    def update(self, probe: Probe) -> None:
        """Clip and step, then what the method does after a step."""
        import torch

        probe.phase("optimizer")
        self.precision.unscale(self.optimizer)
        if self.max_norm > 0:
            torch.nn.utils.clip_grad_norm_(
                self.model.parameters(), self.max_norm, foreach=self.foreach or None
            )
        self.precision.step(self.optimizer)
        self.count += 1
        self.subject.method.after_step(self.model, self.subject.config, self.count)
        probe.optimizer_done()


def _script(step: TrainStep, probe: Probe) -> None:
    """Outputs and loss stay bound until the next forward's results replace them."""
    probe.phase("forward")
    step.optimizer.zero_grad()
    for _ in range(step.accumulation):
        probe.phase("forward")
        step.outputs = step.forward()
        step.loss = step.loss_of(step.outputs)
        probe.forward_done(step.outputs)
        probe.phase("backward")
        step.precision.scaled(step.loss).backward()
        probe.backward_done()
    step.update(probe)


def _step_function(step: TrainStep, probe: Probe) -> None:
    """Outputs and loss live through the optimizer step, and die before the next forward."""
    probe.phase("forward")
    step.optimizer.zero_grad()
    outputs = loss = None
    for _ in range(step.accumulation):
        probe.phase("forward")
        outputs = step.forward()
        loss = step.loss_of(outputs)
        probe.forward_done(outputs)
        probe.phase("backward")
        step.precision.scaled(loss).backward()
        probe.backward_done()
    step.update(probe)
    del outputs, loss


def _trainer(step: TrainStep, probe: Probe) -> None:
    """Outputs are dead before the backward, the loss before the optimizer step.

    As `Trainer.training_step` and `compute_loss` (transformers/trainer.py); gradients are dropped
    at the step's end.
    """
    for _ in range(step.accumulation):
        probe.phase("forward")
        loss = _compute_loss(step, probe)
        probe.phase("backward")
        step.precision.scaled(step.scaled(loss)).backward()
        del loss
        probe.backward_done()
    step.update(probe)
    step.model.zero_grad()


def _compute_loss(step: TrainStep, probe: Probe) -> Any:
    outputs = step.forward()
    probe.forward_done(outputs)
    return step.objective.loss(step, outputs)


_LOOPS: dict[str, Callable[[TrainStep, Probe], None]] = {
    "script": _script,
    "step-function": _step_function,
    "trainer": _trainer,
}


def _objective(spec: RunSpec, model: torch.nn.Module, *, cuda: bool) -> Objective:
    if not STACKS[spec.stack].measures_tokens:
        return ModelLoss()
    from profiler.subject.workloads import sft

    return sft.ChunkedLoss(model, cuda=cuda) if spec.loss == "chunked" else sft.FullLoss()


def device_type(model: torch.nn.Module) -> str:
    """Where a model's tensors are."""
    return next(model.parameters()).device.type


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Parameters that require a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def decay_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """The two groups of `Trainer.create_optimizer`: with and without weight decay."""
    from transformers import Trainer

    # The method reads nothing of a trainer.
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    groups: list[dict[str, Any]] = []
    for inside in (True, False):
        parameters = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (name in decayed) == inside
        ]
        groups.append({"params": parameters, "weight_decay": 0.0})
    return groups


def accepts_loss_kwargs(model: torch.nn.Module) -> bool:
    """Whether `Trainer` would pass `num_items_in_batch` (transformers/trainer.py)."""
    get_base = getattr(model, "get_base_model", None)
    base = get_base() if get_base is not None else model
    stated = getattr(base, "accepts_loss_kwargs", None)
    if stated is not None:
        return bool(stated)
    return any(
        item.kind == inspect.Parameter.VAR_KEYWORD
        for item in inspect.signature(base.forward).parameters.values()
    )
