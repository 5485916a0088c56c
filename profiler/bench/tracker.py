"""The storage tracker: notes every storage that an op allocates, and when it dies.

It follows storages, not tensors: a view allocates nothing, and a storage dies when its last tensor
does. The same tracker watches real and fake tensors; what a CUDA device would do otherwise comes in
through `Rules` (`profiler.bench.cuda`).

Known limits: what a kernel allocates inside itself is invisible unless a rule names it; a storage
that is resized after its first sight keeps its first size.
"""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.bench import accumulation, flop_formulas, layouts, packed_products
from profiler.bench.modules import ModulePaths
from profiler.bench.op_work import Kind, OpWork, kind
from profiler.bench.repetition.log import OpLog
from profiler.bench.sources import Sources
from profiler.subject.fake_dispatch import FakeDispatch
from profiler.subject.shadows import Shadows, asks
from profiler.trace import Block, Mark, Op, Trace

aten = torch.ops.aten
_STRIDED = torch.strided
_TENSOR = torch.Tensor
_DEVICE = torch.ops.prim.device.default

#: Where an op stands: its module's path, whether it comes after the output embedding, and the
#: source line that runs it.
_Place = tuple[str, bool, str]
_NOWHERE: _Place = ("", False, "")
_NONE: frozenset[int] = frozenset()

#: A category that a block has until `profiler.bench.categories` decides by its lifetime.
UNDECIDED = ""


@dataclass
class Rules:
    """What a device does that the ops themselves do not show.

    Attributes:
        replace: another implementation of an op, `f(func, args, kwargs) -> out`.
        check: raises what the device's kernel would, `f(func, args)`.
        inside: what a kernel allocates for itself while it runs, `f(args, kwargs) -> sizes`; the
            sizes live until the kernel returns.
        result_first: ops whose result is allocated before what their kernel takes inside.
        on_op: called for each op with its packet's name, once its result is there; yields
            (bytes, op) of allocations that stay for ever (library workspaces).
        host: there is a host beside the device: literals of `torch.tensor` stay there, and so do
            tensors on meta (`profiler.subject.fake_build`); neither is the device's memory.
        on_host: which outputs of an op are on the host, too, by position.
        cache_bytes: of the device's last cache.
    """

    replace: dict[Any, Callable[..., Any]] = field(default_factory=dict)
    check: dict[Any, Callable[..., None]] = field(default_factory=dict)
    inside: dict[Any, Callable[..., list[int]]] = field(default_factory=dict)
    result_first: frozenset[Any] = frozenset()
    on_op: Callable[[str, str], list[tuple[int, str]]] | None = None
    host: bool = False
    on_host: dict[Any, frozenset[int]] = field(default_factory=dict)
    cache_bytes: int = 0


class _StorageRef(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to a storage that knows its block and its key."""

    __slots__ = ("block", "key")
    block: int
    key: int


#: The kernels of ops that are made of others. `decompose` prefers those in Python, which copy
#: where these do not (dropout's, in evaluation).
_COMPOSED = torch._C.DispatchKey.CompositeImplicitAutograd


def _is_composed(func: Any) -> bool:
    return isinstance(func, torch._ops.OpOverload) and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSED)
    )


@dataclass(slots=True)
class _OpInfo:
    """What is known of an op without its arguments."""

    name: str
    factors: str
    view: bool
    flops: Callable[..., int] | None
    replace: Callable[..., Any] | None
    check: Callable[..., None] | None
    inside: Callable[..., list[int]] | None
    result_first: bool
    asks: bool
    on_host: frozenset[int]
    work: Kind
    composed: bool  # of other ops


@dataclass(slots=True)
class Origin:
    """Where a block came from, for the decision on its category."""

    after_head: bool
    recompute: int  # number of the recomputation it was allocated in, 0 for none
    node: int  # number of the autograd node that was running, 0 for none
    freed_in_node: bool


class StorageTracker(TorchDispatchMode):
    """Writes a `Trace` of what runs inside it.

    Use: `register` what is there before, then `with tracker:` around the steps, with `phase` at
    each phase's start and `role` for storages whose purpose is known.
    """

    def __init__(
        self,
        trace: Trace,
        paths: ModulePaths,
        rules: Rules,
        shadows: Shadows,
        dispatch: FakeDispatch | None = None,
    ) -> None:
        super().__init__()
        self.trace = trace
        self.paths = paths
        self.rules = rules
        self.shadows = shadows
        self.origins: list[Origin] = []
        self.recomputes: list[tuple[int, int]] = [(0, 0)]  # event span of each recomputation
        self.outside: str | None = None
        self.closed = False
        self.current_phase = "setup"
        self.step = 0
        self._alone = accumulation.held_by_engine_alone()
        self._live: dict[int, _StorageRef | None] = {}
        self._infos: dict[Any, _OpInfo] = {}
        self._dispatch: Callable[..., Any] = dispatch or _as_it_is
        self._work = OpWork(rules.cache_bytes, self._is_on_host)
        self._views = 0
        self._silent = -1
        self._sources = Sources()
        self._sequence: dict[int, _Place] = {}
        self._node_key = 0
        self._node_id = 0
        self._node_place = _NOWHERE
        self._recomputing = False

    # --- what the bench says -------------------------------------------------------------------

    def phase(self, name: str) -> None:
        """Enter a phase of the current step."""
        self.current_phase = name
        self.trace.marks.append(Mark(len(self.trace.events), name, self.step))
        self._node_key = 0
        self._node_id += 1
        if name == "forward":
            self._sequence.clear()
            self.paths.restart()

    def register(self, tensor: torch.Tensor, category: str, module: str, op: str) -> None:
        """Count a tensor that is there before the first op, or give its storage this category."""
        storage = tensor.untyped_storage()
        ref = self._live.get(storage._cdata)
        if ref is None:
            self._allocate(storage, tensor, op, module, category)
            return
        block = self.trace.blocks[ref.block]
        if block.category == UNDECIDED:
            block.category, block.module, block.op = category, module, op
            block.shape, block.dtype = tuple(tensor.shape), _DTYPE_NAMES[tensor.dtype]

    def adopt(
        self, blocks: list[Block], events: array[int], live: dict[int, torch.UntypedStorage]
    ) -> None:
        """Go on from what was allocated before; `live` are the storages of blocks still held."""
        assert not self.trace.blocks
        self.trace.blocks.extend(blocks)
        self.trace.events.extend(events)
        self.origins.extend(Origin(False, 0, 0, False) for _ in blocks)
        for block, storage in live.items():
            self._forget_later(storage, storage._cdata, block)

    def role(
        self, tensor: torch.Tensor, category: str, over: frozenset[str], module: str | None = None
    ) -> None:
        """Give a live storage a category (and a module), unless it has one not in `over`."""
        ref = self._live.get(tensor.untyped_storage()._cdata)
        if ref is not None and ref.block >= 0:
            block = self.trace.blocks[ref.block]
            if block.category == UNDECIDED or block.category in over:
                block.category = category
                if module is not None:
                    block.module = module

    def keep_log(self, log: OpLog) -> None:
        """The steps begin: note beside the trace what their ops touch."""
        log.blocks, log.events = len(self.trace.blocks), len(self.trace.events)
        log.categories = [block.category for block in self.trace.blocks]
        self._work.keep_log(log, self._number)

    def close(self) -> None:
        """The run is over: what is freed from now on is the bench's doing."""
        self.trace.marks.append(Mark(len(self.trace.events), "end", self.step))
        self.closed = True

    def allocate_for_ever(self, nbytes: int, op: str, category: str) -> None:
        """A block that no tensor holds and nothing frees (a library's workspace)."""
        self._event(nbytes, category, op, "", (nbytes,), "uint8")

    @contextmanager
    def outside_allocator(self, name: str) -> Iterator[None]:
        """What is allocated meanwhile is not the allocator's, but counted under `name`."""
        before, self.outside = self.outside, name
        try:
            yield
        finally:
            self.outside = before

    # --- what torch says -----------------------------------------------------------------------

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard costs as much as the tracker

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked some twice per op, and no op
        kwargs = kwargs or {}
        info = self._infos.get(func)
        if info is None:
            info = self._info(func)
        if info.composed and torch.is_inference_mode_enabled():
            with self:  # elsewhere autograd has taken it apart before
                return func._op_dk(_COMPOSED, *args, **kwargs)
        if info.view:
            self._views += 1
            out = self._dispatch(func, args, kwargs)
            if func is aten.lift_fresh.default:  # a literal: the only real tensor there is
                self.shadows.follow(func, args, kwargs, out)
                if self.rules.host:
                    storage = out.untyped_storage()
                    self._forget_later(storage, storage._cdata, -1)
            new = torch._C._autograd._get_sequence_nr() - 1 not in self._sequence
            if new and (self.current_phase == "forward" or self.paths.depth):
                self._where()  # a view allocates nothing, but its node's backward may
            return out
        place = self._where()
        module = place[0]
        sizes = info.inside(args, kwargs) if info.inside is not None else []
        inside = [] if info.result_first else self._take_inside(sizes, info.name, place)
        answer = self.shadows.answer(func, args, kwargs) if info.asks else None
        if answer is not None:
            out = answer[0]
        elif info.replace is not None:
            out = info.replace(func, args, kwargs)
        elif (
            func is accumulation.ADD
            and self.current_phase == "backward"
            and not kwargs
            and accumulation.in_place(args, self._alone)
        ):
            out = args[0].add_(args[1])
        else:
            if info.check is not None:
                info.check(func, args)
            out = self._dispatch(func, args, kwargs)
        if answer is None:
            self.shadows.follow(func, args, kwargs, out)

        dtype = info.factors
        outs = (out,) if isinstance(out, torch.Tensor) else out
        if isinstance(outs, (tuple, list)):
            for position, tensor in enumerate(outs):
                if isinstance(tensor, torch.Tensor):
                    if position in info.on_host:
                        storage = tensor.untyped_storage()
                        self._forget_later(storage, storage._cdata, -1)
                        continue
                    dtype = dtype or _DTYPE_NAMES[tensor.dtype]
                    for part in (tensor,) if tensor.layout is _STRIDED else _parts(tensor):
                        storage = part.untyped_storage()
                        if storage._cdata not in self._live:
                            self._allocate(storage, part, info.name, module, UNDECIDED, place)
        if info.result_first:
            inside = self._take_inside(sizes, info.name, place)
        if self.rules.on_op is not None:
            for size, op in self.rules.on_op(info.name, self.current_phase):
                self.allocate_for_ever(size, op, "workspaces")
        for block in reversed(inside):
            self.trace.events.append(-(block + 1))
        if info.on_host and isinstance(outs, (tuple, list)):
            outs = [one for place, one in enumerate(outs) if place not in info.on_host]
        if not dtype:
            dtype = _first_dtype(args)
        taken = sum([self.trace.blocks[block].nbytes for block in inside])
        work = self._work.measure(info.work, args, outs, taken)
        flops = 0
        if info.flops is not None:
            flops = int(info.flops(*args, **kwargs, out_val=out))
        self.trace.ops.append(
            Op(
                info.name,
                self.current_phase,
                module,
                self.step,
                flops,
                work.nbytes,
                dtype,
                self._recomputing,
                len(self.trace.events),
                work.cached,
                work.product,
                work.kernels,
                work.items,
                self._views,
                self.paths.take_entered(),
                work.waits,
                causal=work.causal,
            )
        )
        self._views = 0
        if not self.trace.cuda:
            self.trace.ops[-1].transposed = layouts.transposed(func, args)
        return out

    # --- inside --------------------------------------------------------------------------------

    def _take_inside(self, sizes: list[int], op: str, place: _Place) -> list[int]:
        """The blocks that a kernel takes for itself."""
        return [
            self._event(size, "temporaries", op, place[0], (size,), "uint8", place[2])
            for size in sizes
        ]

    def _info(self, func: Any) -> _OpInfo:
        packet = getattr(func, "_overloadpacket", func)
        name = f"{func.namespace}.{packet.__name__}" if hasattr(func, "namespace") else str(func)
        info = self._infos[func] = _OpInfo(
            name=name,
            factors=packed_products.FACTORS.get(name, ""),
            view=bool(getattr(func, "is_view", False)),
            flops=flop_formulas.formula(packet),
            replace=self.rules.replace.get(func),
            check=self.rules.check.get(func),
            inside=self.rules.inside.get(func),
            result_first=func in self.rules.result_first,
            asks=asks(func),
            on_host=self.rules.on_host.get(func, _NONE),
            work=kind(func),
            composed=_is_composed(func),
        )
        return info

    def _where(self) -> _Place:
        """Where the running op stands.

        In a forward it is the module being run. In a backward it is where the running autograd
        node was made, found by the node's sequence number.
        """
        paths = self.paths
        if self.current_phase == "forward":
            return self._made((paths.current, paths.after_head, self._sources.running()))
        if self.current_phase != "backward":
            self._recomputing = False
            return (paths.current, False, self._sources.running(optimizer=True))
        node = torch._C._current_autograd_node()
        key = _node_key(node)
        if key != self._node_key:
            self._node_key = key
            self._node_id += 1
            self._node_place = self._origin_of(node, key)
        if paths.depth:
            # A module's forward inside a backward: checkpointing computes it again.
            if not self._recomputing:
                self._recomputing = True
                self.recomputes.append((len(self.trace.events), -1))
            return self._made((paths.current, False, self._sources.running()))
        self._end_recompute()
        return self._node_place

    def _made(self, place: _Place) -> _Place:
        """An op at `place` runs: the latest autograd node, if nothing ran since, is its own."""
        self._sequence.setdefault(torch._C._autograd._get_sequence_nr() - 1, place)
        return place

    def _end_recompute(self) -> None:
        if self._recomputing:
            self._recomputing = False
            start, _ = self.recomputes[-1]
            self.recomputes[-1] = (start, len(self.trace.events))

    def _origin_of(self, node: Any, key: int) -> _Place:
        if key < 0:
            return (self.paths.of_parameter(node.variable), False, "")
        return self._sequence.get(key, _NOWHERE)

    def _allocate(
        self,
        storage: torch.UntypedStorage,
        tensor: torch.Tensor,
        op: str,
        module: str,
        category: str,
        place: _Place = _NOWHERE,
    ) -> None:
        nbytes = storage.nbytes()
        key = storage._cdata
        if self.outside is not None:
            self.trace.outside[self.outside] = self.trace.outside.get(self.outside, 0) + nbytes
            self._forget_later(storage, key, -1)
            return
        if self.rules.host and _on_meta(tensor):
            self._forget_later(storage, key, -1)
            return
        block = self._event(
            nbytes, category, op, module, tuple(tensor.shape), _DTYPE_NAMES[tensor.dtype], place[2]
        )
        self.origins[block].after_head = place[1]
        self._forget_later(storage, key, block)

    def _is_on_host(self, key: int) -> bool:
        if not self.rules.host:
            return False
        ref = self._live.get(key)
        return ref is None or ref.block < 0  # a literal is never seen allocated

    def _number(self, key: int) -> int | None:
        """A live storage's block, or a negative number of its own; None if it is not known."""
        ref = self._live.get(key)
        if ref is None:
            return None
        if ref.block == -1:
            self._silent -= 1
            ref.block = self._silent
        return ref.block

    def _forget_later(self, storage: torch.UntypedStorage, key: int, block: int) -> None:
        ref = _StorageRef(storage, self._freed)
        ref.block = block
        ref.key = key
        self._live[key] = ref

    def _event(
        self,
        nbytes: int,
        category: str,
        op: str,
        module: str,
        shape: tuple[int, ...],
        dtype: str,
        source: str = "",
    ) -> int:
        trace = self.trace
        block = len(trace.blocks)
        trace.blocks.append(
            Block(nbytes, category, op, module, shape, dtype, self.current_phase, source)
        )
        self.origins.append(
            Origin(
                False,
                len(self.recomputes) - 1 if self._recomputing else 0,
                self._node_id if self.current_phase == "backward" else 0,
                False,
            )
        )
        trace.events.append(block + 1)
        return block

    def _freed(self, ref: _StorageRef) -> None:
        if self._live.get(ref.key) is ref:
            del self._live[ref.key]
            self._work.forget(ref.key)
        if ref.block < 0 or self.closed:
            return
        self.trace.events.append(-(ref.block + 1))
        origin = self.origins[ref.block]
        if origin.node and origin.node == self._node_id and not origin.recompute:
            key = _node_key(torch._C._current_autograd_node())
            origin.freed_in_node = key == self._node_key


def _as_it_is(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def _first_dtype(args: tuple[Any, ...]) -> str:
    """The type of the first tensor among the arguments, else of the first in a list of them."""
    for argument in args:
        if isinstance(argument, _TENSOR):
            return _DTYPE_NAMES[argument.dtype]
    for argument in args:
        if isinstance(argument, (list, tuple)) and argument and isinstance(argument[0], _TENSOR):
            return _DTYPE_NAMES[argument[0].dtype]
    return ""


def _on_meta(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, FakeTensor) and tensor.fake_device.type == "meta"


def _parts(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The strided tensors that a sparse one consists of."""
    return tensor._indices(), tensor._values()


def _node_key(node: Any) -> int:
    """A number for an autograd node, without keeping it (and what it saved) alive.

    Its sequence number; gradient accumulators share one, and are told apart by their parameter.
    """
    if node is None:
        return 0
    number = node._sequence_nr()
    return -id(node.variable) if number > _LAST_SEQUENCE_NUMBER else number


#: AccumulateGrad has the largest unsigned number (torch/csrc/autograd/functions/accumulate_grad.h).
_LAST_SEQUENCE_NUMBER = 1 << 62

_DTYPE_NAMES = {
    value: str(value).removeprefix("torch.")
    for value in vars(torch).values()
    if isinstance(value, torch.dtype)
}
