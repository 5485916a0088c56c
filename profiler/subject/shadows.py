"""Values for the few tensors without any whose values decide what happens.

A mask of ones is elided, positions that run on are not packed sequences: `transformers` asks such
questions of the tensors made from a batch's, and some methods of `peft` draw indices or sizes while
they are built. A fake or meta tensor has no values, so these few carry real ones along (shadows),
and every op whose inputs all have a small shadow is also run on the shadows.

A shadow belongs to a storage: whatever views the storage views the shadow.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

#: Larger tensors are followed by shape alone (a causal mask of 1024 x 1024 just passes).
LIMIT = 1 << 20

_FACTORIES = frozenset(
    {
        aten.arange.default,
        aten.arange.start,
        aten.arange.start_step,
        aten.ones.default,
        aten.zeros.default,
        aten.full.default,
        aten.scalar_tensor.default,
    }
)
#: Drawn indices decide: a permutation, a hash.
_INDICES = frozenset(
    {
        aten.randint.default,
        aten.randint.generator,
        aten.randint.low,
        aten.randint.low_generator,
        aten.randperm.default,
        aten.randperm.generator,
    }
)
#: One number drawn decides (OPT's layer drop before transformers 4.50, LoHa's module dropout).
_DRAWS = frozenset({aten.rand.default, aten.rand.generator})
_SCALARS = frozenset({aten._local_scalar_dense.default, aten.is_nonzero.default})
#: Asked to find a broken run; the numbers of one that is worth profiling are finite.
_BROKEN = frozenset({aten.isinf.default, aten.isnan.default})
#: Ops whose result's shape is a matter of values.
_SHAPED_BY_VALUES = frozenset(
    {
        aten.nonzero.default,
        aten.nonzero_numpy.default,
        aten.bincount.default,
        aten.masked_select.default,
        aten._unique2.default,
        aten.unique_consecutive.default,
        aten.unique_dim.default,
    }
)


def asks(func: Any) -> bool:
    """Whether `Shadows.answer` may have to answer this op."""
    return func in _SCALARS or func in _SHAPED_BY_VALUES or func is aten.index.Tensor


class _Known(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to a storage without values, with the bytes it would hold."""

    __slots__ = ("key", "values")
    key: int
    values: torch.UntypedStorage


class Shadows:
    """Follows known values through the ops that run on them.

    Attributes:
        enabled: False where tensors have values of their own.
        unknown: how often a value was asked for that nothing knows, and guessed.
    """

    def __init__(self) -> None:
        self.enabled = True
        self.unknown = 0
        self._known: dict[int, _Known] = {}
        self._writes: dict[Any, tuple[int, ...]] = {}

    def attach(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """Say that `tensor` has the values of the real `value`, of the same shape and dtype."""
        assert not isinstance(value, FakeTensor)  # its data pointer is null
        with no_dispatch(), torch.no_grad():
            storage = torch.empty(tensor.untyped_storage().nbytes(), dtype=torch.uint8)
            self._remember(tensor.untyped_storage(), storage.untyped_storage())
            values = self.value(tensor)
            assert values is not None
            values.copy_(value)

    def value(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The values of a tensor, None if they are not known."""
        if tensor.layout is not torch.strided:
            return None
        if not isinstance(tensor, FakeTensor):
            return tensor
        if tensor.constant is not None:  # a literal's; what writes to it is the mode's business
            with no_dispatch():
                return tensor.constant.clone()
        known = self._known.get(tensor.untyped_storage()._cdata)
        if known is None:
            return None
        with no_dispatch():
            return torch.empty(0, dtype=tensor.dtype).set_(
                known.values, tensor.storage_offset(), tensor.size(), tensor.stride()
            )

    def answer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any] | None:
        """The result, in a tuple, of an op that only values can give; None for any other op.

        What is not known is guessed, and counted: a number (`.item()`) is 0, as the libraries log
        such numbers, compare with them and scale by them; a truth is true and a mask all ones, the
        most that it can choose. A count that is not known is the op's own error.
        """
        if not self.enabled:
            return None
        if func in _SCALARS:
            value = self.value(args[0])
            if value is None:
                self.unknown += 1
                with no_dispatch():
                    guess = args[0].dtype is torch.bool
                    return (torch.full((), guess, dtype=args[0].dtype, device="cpu").item(),)
            with no_dispatch():
                return (value.item(),)
        if func is aten.index.Tensor:
            return self._index(*args)
        known = self._values(args, kwargs)
        if known is None:
            return None
        with no_dispatch():
            real = func(*known[0], **known[1])
        return (tree_map_only(torch.Tensor, lambda value: self._like(value, args[0]), real),)

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Give `out` a shadow if all inputs have one (or it is a counter made from numbers).

        To be called for ops that are no views, after they ran.
        """
        if not self.enabled:
            return
        first = args[0] if args else None
        if isinstance(first, (list, tuple)) and first:
            first = first[0]
        if isinstance(first, torch.Tensor):
            if not self._may_be_known(first):
                if func in _BROKEN and out.numel() <= LIMIT:
                    with no_dispatch():
                        none = torch.zeros(out.shape, dtype=torch.bool)
                    self.attach(out, none)
                return
        elif (
            func not in _FACTORIES
            and func not in _INDICES
            and not (func in _DRAWS and out.numel() == 1)
        ):
            return
        writes = self._written(func)
        known = None
        if isinstance(out, torch.Tensor) and out.numel() <= LIMIT:
            known = self._values(args, kwargs)
        if known is None:
            for position in writes:
                for tensor in tree_leaves(args[position]):
                    self.forget(tensor)
            return
        real_args, real_kwargs = known
        if real_kwargs.get("device") is not None:
            real_kwargs = {**real_kwargs, "device": torch.device("cpu")}
        with no_dispatch():
            real = func(*real_args, **real_kwargs)
        if not writes:  # else what was written to is a view of the shadow
            self.attach(out, real)

    def _may_be_known(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, FakeTensor) or (
            tensor.layout is torch.strided
            and (tensor.untyped_storage()._cdata in self._known or tensor.constant is not None)
        )

    def _index(self, tensor: torch.Tensor, indices: Any) -> tuple[Any] | None:
        """Indexing by masks, as by the positions of their ones."""
        if not _has_mask(indices):
            return None
        positions: list[Any] = []
        for index in indices:
            if index is None or index.dtype not in (torch.bool, torch.uint8):
                positions.append(index)
                continue
            mask = self.value(index)
            if mask is None:
                self.unknown += 1
                positions.extend(
                    torch.empty(index.numel(), dtype=torch.int64, device=tensor.device)
                    for _ in range(index.dim())
                )
                continue
            with no_dispatch():
                found = mask.nonzero().unbind(1)
            positions.extend(self._like(one, tensor) for one in found)
        out = aten.index.Tensor(tensor, positions)
        self.follow(aten.index.Tensor, (tensor, positions), {}, out)
        return (out,)

    def _values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """The arguments with each tensor's values for it, None if one has none."""
        values = {}
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                value = self.value(leaf)
                if value is None:
                    return None
                values[id(leaf)] = value
        known: tuple[Any, Any] = tree_map_only(
            torch.Tensor, lambda tensor: values[id(tensor)], (args, kwargs)
        )
        return known

    def _like(self, value: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        out = torch.empty_strided(
            value.size(), value.stride(), dtype=value.dtype, device=beside.device
        )
        self.attach(out, value)
        return out

    def _written(self, func: Any) -> tuple[int, ...]:
        """Positions of the arguments that an op writes to."""
        writes = self._writes.get(func)
        if writes is None:
            arguments = func._schema.arguments if hasattr(func, "_schema") else ()
            writes = self._writes[func] = tuple(
                position
                for position, argument in enumerate(arguments)
                if argument.alias_info is not None
                and argument.alias_info.is_write
                and not argument.kwarg_only
            )
        return writes

    def _remember(self, storage: torch.UntypedStorage, values: torch.UntypedStorage) -> None:
        known = _Known(storage, self._died)
        known.key, known.values = storage._cdata, values
        self._known[known.key] = known

    def _died(self, known: _Known) -> None:
        if self._known.get(known.key) is known:
            del self._known[known.key]

    def forget(self, tensor: Any) -> None:
        """Say that a tensor's values are no longer known."""
        if isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided:
            self._known.pop(tensor.untyped_storage()._cdata, None)


def _has_mask(indices: Any) -> bool:
    return any(
        isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
        for index in indices
    )
