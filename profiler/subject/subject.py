"""Subject: the model with its method, ready for a bench."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError, UsageError
from profiler.hardware import devices
from profiler.record import Params
from profiler.resolve import Cell
from profiler.subject import kbit, models, optimizers
from profiler.subject.quantization import quantize
from profiler.subject.stacks import STACKS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from profiler.bench.load import Load
    from profiler.subject.fake_build import FakeBuild
    from profiler.subject.methods import Method


@dataclass
class Subject:
    """What is trained.

    Attributes:
        model: the adapted model, in training mode.
        adapter_names: paths of the parameters that the method added.
        method, config: what was put on the model, for its hooks.
        params: the counts; a 4-bit weight counts as the numbers it stands for.
        building: the fake tensors' mode and what is known of their values, None for a model in
            memory.
        vocab_size: rows of the input embedding: token ids are below it.
    """

    model: torch.nn.Module
    adapter_names: frozenset[str]
    method: Method
    config: dict[str, Any] | None
    params: Params
    vocab_size: int
    building: FakeBuild | None = None


@dataclass
class Base:
    """A loaded and quantised model that nothing is put on yet.

    Attributes:
        parameters: how many it has; a 4-bit weight counts as the numbers it stands for.
    """

    model: PreTrainedModel
    parameters: int


def load_base(cell: Cell, *, device: str = "meta", load: Load | None = None) -> Base:
    """Load and quantise a cell's model; the arguments are as of `build`."""
    import torch

    spec = cell.spec
    model = models.build(
        cell.model,
        dtype=getattr(torch, spec.weights_dtype),
        attention=spec.attention,
        device=device,
    )
    model.config.use_cache = spec.use_cache
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if spec.quantization != "none":
        assert spec.quantization is not None
        assert spec.compute_dtype is not None
        quantize(
            model,
            spec.quantization,
            compute_dtype=getattr(torch, spec.compute_dtype),
            replaced=load.begin if load is not None else None,
        )
    elif load is not None:
        load.begin(model, None)
    return Base(model, parameters)


def build(
    cell: Cell,
    *,
    device: str = "meta",
    fill: Callable[[torch.nn.Module], None] | None = None,
    load: Load | None = None,
    base: Base | None = None,
) -> Subject:
    """Build a cell's subject: load, quantise, prepare, adapt, as its stack does.

    Args:
        device: where weights are made; "meta" gives a subject without memory, of fake tensors.
        fill: called with the loaded and quantised model, to give its weights values.
        load: is told what a simulated GPU's memory would see of all this.
        base: what `load_base` gave for the same cell, device and load; it is used up.

    Raises:
        UsageError, UnsupportedError: see `profiler.resolve`.
    """
    import torch

    from profiler.subject.adapter_file import adapter_file_bytes

    spec = cell.spec
    if base is None:
        base = load_base(cell, device=device, load=load)
    model: Any = base.model
    stack = STACKS[spec.stack]
    quantized = spec.quantization != "none"
    if fill is not None:
        fill(model)
    building: FakeBuild | None = None
    if device == "meta":
        from profiler.subject.fake_build import FakeBuild

        building = FakeBuild(cuda=spec.device not in devices.MEASURED and spec.device != "sim:cpu")
        building.fill(model)
        if load is not None:
            building.watch(load.weights(model))
    assert spec.kbit_prepare is not None
    preparing = load.preparing() if load is not None else contextlib.nullcontext()
    with building or contextlib.nullcontext(), preparing:
        model = kbit.prepare(model, spec.kbit_prepare, quantized=quantized)
    before = {id(parameter) for parameter in model.parameters()}
    words = model.get_input_embeddings()
    vocab_size = words.weight.shape[0]
    assert spec.adapter_dtype is not None
    adapter_dtype = getattr(torch, spec.adapter_dtype)
    # A stack that casts over quantised weights does so afterwards, and not only what was added.
    cast_after = quantized and stack.adapter_dtype_quantized != stack.adapter_dtype
    try:
        with building or contextlib.nullcontext():
            adapted: Any = cell.method.method.apply(
                model,
                cell.config,
                adapter_dtype=torch.float32 if cast_after else adapter_dtype,
                device="cpu" if building is not None else device,
            )
        if building is not None:
            building.settle(adapted, moved=stack.moves_model and not quantized)
    except UnsupportedError as error:
        if cell.method.given:  # the options are the user's, not the preset's
            raise UsageError(f"--method {cell.method.label}: {error}") from None
        raise
    with building or contextlib.nullcontext():
        if spec.kbit_prepare == "trl" and quantized:
            kbit.cast_back(adapted)
        if cast_after:
            kbit.cast_trained(adapted, adapter_dtype)
    if load is not None:
        load.built(adapted)
    if spec.checkpointing != "none":
        reentrant = spec.checkpointing == "reentrant"
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": reentrant}
        )
        # A reentrant checkpoint passes gradients only if one of its inputs requires one. With a
        # frozen embedding none does, so every stack makes the embedding's output require it.
        if (reentrant or stack.input_gradients) and not words.weight.requires_grad:
            model.enable_input_require_grads()
    adapted.train()
    assert spec.optimizer is not None
    optimizers.prepare(spec.optimizer, adapted)

    added = {
        name: parameter
        for name, parameter in adapted.named_parameters()
        if id(parameter) not in before
    }
    added_total = sum(parameter.numel() for parameter in added.values())
    trainable = sum(
        parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad
    )
    if not trainable:
        raise UnsupportedError(f"{cell.method.label} finds nothing to train on this model")
    total = base.parameters + added_total
    return Subject(
        model=adapted,
        adapter_names=frozenset(added),
        method=cell.method.method,
        config=cell.config,
        params=Params(
            total=total,
            trainable=trainable,
            trainable_fraction=trainable / total,
            adapter_file_bytes=adapter_file_bytes(adapted),
        ),
        vocab_size=vocab_size,
        building=building,
    )
