"""What loading allocates on a CUDA device, before the first step.

Where `from_pretrained` puts the weights on the device itself (`Stack.loads_on_device`, and always
where bitsandbytes quantises them), its loop is written here, from transformers 5.23 and
bitsandbytes 0.50: one block that warms the allocator's cache, then each weight in turn, quantised
as it comes. What follows (`peft`'s preparation, its adapters, a stack's casts) is the libraries'
own code on fake tensors: whatever is made on the device or sent to it is noted
(`profiler.subject.places`). Where the weights are loaded on the host, the device sees one move of
the finished model.

Not in it: what kernels take inside (cuSOLVER's, where an adapter begins with a decomposition).
"""

from __future__ import annotations

import inspect
import weakref
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from profiler.bench.tracker import UNDECIDED, StorageTracker
from profiler.hardware.devices import Device
from profiler.spec import RunSpec
from profiler.subject.stacks import STACKS
from profiler.trace import Block, Mark

PHASE = "load"
#: The event of an emptied cache (`Trace.events`).
_EMPTY_CACHE = 0


class _Held(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to a storage on the device that knows its block and its key."""

    __slots__ = ("block", "key")
    block: int
    key: int


class Load:
    """Writes the events of a load; `subject.build` says what happens, `hand_over` gives them on.

    Args:
        capacity: the GPU's memory in bytes.
        on_device: whether `from_pretrained` puts the weights there.
    """

    def __init__(self, capacity: int, *, on_device: bool) -> None:
        self.capacity = capacity
        self.on_device = on_device
        self.blocks: list[Block] = []
        self.events: array[int] = array("q")
        self._live: dict[int, _Held] = {}
        self._sizes: dict[str, int] = {}
        self._has_map = False

    @classmethod
    def of(cls, spec: RunSpec, device: Device) -> Load:
        """The load of a cell on a simulated GPU."""
        on_device = STACKS[spec.stack].loads_on_device or spec.quantization != "none"
        return cls(device.memory_bytes, on_device=on_device)

    def begin(self, model: Any, quantizer: Any) -> None:
        """The model is on the meta device, its layers replaced and nothing packed yet."""
        if self.on_device:
            self._sizes = {
                name: tensor.numel() * tensor.element_size()
                for name, tensor in model.named_parameters()
            }
            nbytes = warm_up(model, quantizer, self.capacity)
            if nbytes:
                self._free(self._take(nbytes, "caching_allocator_warmup"))

    def weights(self, model: torch.nn.Module) -> Callable[[torch.Tensor], None] | None:
        """The model's tensors are fake: each gets its place, in the order of loading.

        `convert_and_load_state_dict_in_model` (transformers/core_model_loading.py), in one thread,
        as it is where weights are quantised (four threads keep about this order); then the buffers
        that no checkpoint has (`_move_missing_keys_from_meta_to_device`, modeling_utils.py).

        Returns:
            What is to be told of tensors that land on the device from then on.
        """
        if not self.on_device:
            return None
        named: dict[str, torch.Tensor] = dict(model.named_parameters())
        late = []
        turned = set()
        for path, module in model.named_modules():
            if "Conv1D" in getattr(getattr(module, "source_cls", None), "__name__", ""):
                turned.add(f"{path}.weight")
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                if name in module._non_persistent_buffers_set:
                    late.append(buffer)
                else:
                    named[f"{path}.{name}" if path else name] = buffer
        for name in sorted(named, key=_checkpoint_order()):
            tensor: Any = named[name]
            if getattr(tensor, "quant_state", None) is not None:
                self._quantize_4bit(tensor, self._sizes[name], turned=name in turned)
            elif getattr(tensor, "SCB", None) is not None:
                self._quantize_8bit(tensor, self._sizes[name])
            else:
                self.landed(tensor)
        for buffer in late:
            self.landed(buffer)
        return self.landed

    def landed(self, tensor: torch.Tensor) -> None:
        """A tensor was made on the device, or sent to it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        held = _Held(storage, self._died)
        held.key = key
        held.block = self._take(storage.nbytes(), "load")
        self._live[key] = held

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """`prepare_model_for_kbit_training` empties the cache where there is CUDA
        (peft/utils/other.py, peft 0.20 and later)."""
        if not self.on_device:
            yield
            return
        cuda: Any = torch.cuda
        before = cuda.is_available, cuda.empty_cache
        cuda.is_available = lambda: True
        cuda.empty_cache = lambda: self.events.append(_EMPTY_CACHE)
        try:
            yield
        finally:
            cuda.is_available, cuda.empty_cache = before

    def built(self, model: torch.nn.Module) -> None:
        """The model is as its steps find it. If it is on the host it is moved now, as
        `Trainer._move_model_to_device` does: `Module._apply` moves children first."""
        if self.on_device:
            return
        for child in model.children():
            self.built(child)
        for tensor in (*model._parameters.values(), *model._buffers.values()):
            if tensor is not None:
                self.landed(tensor)

    def hand_over(self, tracker: StorageTracker) -> None:
        """The tracker goes on from here: what is alive is for `register` to name."""
        tracker.trace.marks.append(Mark(0, PHASE, 0))
        tracker.current_phase = PHASE
        live = {held.block: storage for held in self._live.values() if (storage := held())}
        self._live.clear()
        for event in self.events:
            if event < 0:
                self.blocks[-event - 1].category = "temporaries"
        tracker.adopt(self.blocks, self.events, live)

    def _quantize_4bit(self, weight: Any, loaded: int, *, turned: bool) -> None:
        """`Bnb4bitQuantize.convert` (transformers/integrations/bitsandbytes.py), which keeps the
        loaded weight until its packed form is there; inside, `bitsandbytes.functional` and its CUDA
        kernels (backends/cuda/ops.py), which make the scales before the packed weight. A `Conv1D`'s
        is turned, and copied for that."""
        state = weight.quant_state
        source = self._take(loaded, "load")
        copy = self._take(loaded, "quantize") if turned else None
        blocks = -(-state.shape.numel() // state.blocksize)
        nested = state.state2
        scales = self._take(4 * blocks, "quantize") if nested is not None else None
        if scales is None:
            self.landed(state.absmax)
        self.landed(weight)
        self.landed(state.code)
        magnitudes = self._take(4 * state.code.numel(), "quantize")  # `get_4bit_type` divides by
        largest = self._take(4, "quantize")  # the largest magnitude of its table
        self._free(magnitudes)
        self._free(largest)
        if nested is not None and scales is not None:
            self.landed(state.offset)
            centred = self._take(4 * blocks, "quantize")
            if not self._has_map:  # the library's own, which each weight's is a copy of
                self._has_map = True
                self._take(4 * nested.code.numel(), "quantize")
            self.landed(nested.absmax)
            self.landed(state.absmax)
            self.landed(nested.code)
            self._free(centred)
            self._free(scales)
        if copy is not None:
            self._free(copy)
        self._free(source)

    def _quantize_8bit(self, weight: Any, loaded: int) -> None:
        """`Bnb8bitQuantize.convert`: the weight goes back to the host and comes again, in float16
        (`Int8Params._quantize`, bitsandbytes/nn/modules.py). Before transformers 5 it came once."""
        source = self._take(loaded, "load") if _loads_in_one_loop() else None
        again = self._take(2 * weight.numel(), "quantize")
        self.landed(weight.SCB)
        self.landed(weight)
        self._free(again)
        if source is not None:
            self._free(source)

    def _take(self, nbytes: int, op: str) -> int:
        number = len(self.blocks)
        self.blocks.append(Block(nbytes, UNDECIDED, op, "", (nbytes,), "uint8", PHASE))
        self.events.append(number + 1)
        return number

    def _free(self, block: int) -> None:
        self.events.append(-(block + 1))

    def _died(self, held: _Held) -> None:
        if self._live.get(held.key) is held:
            del self._live[held.key]
            self._free(held.block)


def warm_up(model: Any, quantizer: Any, capacity: int) -> int:
    """Bytes of the block that `from_pretrained` takes and gives back before it loads, so that the
    weights are cut from one segment; by the library's own function (`caching_allocator_warmup`,
    transformers/modeling_utils.py), on an empty card. 0 where it does not have it.

    Args:
        model: on the meta device, with the layers that the weights are loaded into.
        capacity: the GPU's memory in bytes.
    """
    from transformers import modeling_utils

    function = getattr(modeling_utils, "caching_allocator_warmup", None)
    if function is None or "hf_quantizer" not in inspect.signature(function).parameters:
        return 0  # before 4.49; up to 4.50 it had another form
    cuda = torch.device("cuda", 0)
    taken: list[int] = []
    library: Any = modeling_utils
    library.torch = _Cuda(capacity, taken.append)
    try:
        function(model, dict.fromkeys(model.state_dict(), cuda), quantizer)
    finally:
        library.torch = torch
    return sum(taken)


class _Cuda:
    """torch with an empty card of `capacity` bytes; `empty` tells its size and makes nothing."""

    def __init__(self, capacity: int, take: Callable[[int], None]) -> None:
        self.cuda = SimpleNamespace(
            mem_get_info=lambda index=None: (capacity, capacity),
            memory_reserved=lambda index=None: 0,
            memory_allocated=lambda index=None: 0,
            current_device=lambda: 0,
        )
        self.empty = lambda size, *, dtype, **settings: take(size * dtype.itemsize)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _loads_in_one_loop() -> bool:
    return _loop() is not None


def _loop() -> Any:
    try:
        from transformers import core_model_loading
    except ImportError:  # before transformers 5
        return None
    return core_model_loading


def _checkpoint_order() -> Callable[[str], Any]:
    """The key by which a checkpoint's names are sorted: numbers as numbers. Before transformers 5
    they come as safetensors keeps them, by name."""
    loop = _loop()
    order: Callable[[str], Any] = getattr(loop, "dot_natural_key", str)
    return order
