"""A live model and its optimizer on fake tensors for a while, and back again bit for bit.

Nothing real is written to: modules and the optimizer are given other tensors, and afterwards their
attributes are those that they had. So real parameters, gradients and states keep their values,
their identity and their place in memory.
"""

from __future__ import annotations

import copy
import random
import sys
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch

from profiler.errors import UsageError
from profiler.subject.fakes import Fakes, _named
from profiler.subject.shadows import LIMIT, Shadows

#: Modules that hold parameters in a way of their own (buckets, shards, traced graphs).
_WRAPPERS = frozenset(
    {"OptimizedModule", "DistributedDataParallel", "FullyShardedDataParallel", "DataParallel"}
)


class LiveFakes(Fakes):
    """Fakes of real tensors; what shares a storage shares one again."""

    def __init__(self, mode: FakeTensorMode, shadows: Shadows) -> None:
        super().__init__(mode)
        self._shadows = shadows
        self._copies: dict[int, Any] = {}
        self._inputs: dict[int, weakref.ref[Any]] = {}

    def release(self) -> None:
        """Forget what was made: from now on it lives as long as model and optimizer hold it."""
        for known in (self._bases, self._parameters, self._copies):
            known.clear()
        self._kept.clear()

    def known(self, real: torch.Tensor) -> torch.Tensor:
        """A fake whose values are known, if they are few."""
        storage = real.untyped_storage()
        new = storage._cdata not in self._bases
        fake = self.tensor(real)
        if new and storage.nbytes() <= LIMIT:
            base = self._bases[storage._cdata]
            with no_dispatch(), torch.no_grad():
                if base.shape == real.shape and base.dtype == real.dtype:
                    values = real.detach()
                else:
                    values = torch.empty(0, dtype=torch.uint8, device=real.device).set_(storage)
            self._shadows.attach(base, values)
        return fake

    def input(self, real: torch.Tensor) -> torch.Tensor:
        """A fake of what the loop brings along; it lives as long as the real one does."""
        key = real.untyped_storage()._cdata
        if key in self._bases:
            return self.tensor(real)
        fake = self.known(real)
        self._kept.pop()  # else the real one would live for this

        def died(ref: Any) -> None:
            if self._inputs.get(key) is ref:
                del self._inputs[key], self._bases[key]

        self._inputs[key] = weakref.ref(real.untyped_storage(), died)
        return fake

    def parameter(self, real: torch.nn.Parameter) -> torch.nn.Parameter:
        """A fake parameter with the attributes, the gradient and the hooks of a real one."""
        fake = self._parameters.get(id(real))
        if fake is None:
            fake = torch.nn.Parameter(self.tensor(real.data), requires_grad=real.requires_grad)
            if type(real) is not torch.nn.Parameter:
                fake.__class__ = _named(type(real).__name__)
            attributes = {key: item for key, item in vars(real).items() if key != "data"}
            fake.__dict__.update({key: self.beside(item) for key, item in attributes.items()})
            if real.grad is not None:
                fake.grad = self.tensor(real.grad)
            for hook in (real._backward_hooks or {}).values():
                fake.register_hook(hook)
            for hook in (getattr(real, "_post_accumulate_grad_hooks", None) or {}).values():
                fake.register_post_accumulate_grad_hook(hook)
            self._parameters[id(real)] = fake
            self._kept.append(real)
        return fake

    def beside(self, value: Any) -> Any:
        """An attribute with fakes for its tensors; itself, if it has none."""
        if isinstance(value, FakeTensor):
            return value
        if isinstance(value, torch.nn.Parameter):
            return self.parameter(value)
        if isinstance(value, torch.Tensor):
            return self.known(value)
        if type(value) in (list, tuple):
            items = [self.beside(item) for item in value]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else type(value)(items)
        if type(value) is dict:
            pairs = {key: self.beside(item) for key, item in value.items()}
            return value if all(pairs[key] is value[key] for key in value) else pairs
        if type(value).__module__.startswith("bitsandbytes") and hasattr(value, "__dict__"):
            if isinstance(value, torch.nn.Module):
                return value
            if id(value) not in self._copies:  # a packed weight's state
                made = self._copies[id(value)] = copy.copy(value)
                self._kept.append(value)
                vars(made).update({key: self.beside(item) for key, item in vars(value).items()})
            return self._copies[id(value)]
        return value

    def state(self, value: Any) -> Any:
        """As `beside`, of an optimizer's state: only numbers (steps taken) keep their values."""
        if isinstance(value, torch.Tensor) and not isinstance(
            value, (FakeTensor, torch.nn.Parameter)
        ):
            if value.dim():
                return self.tensor(value)
            number = value.item()
            with self.mode:  # a literal: the mode follows its value through ops on lists, too
                return torch.tensor(number, dtype=value.dtype)
        if type(value) is dict:
            return {key: self.state(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.state(item) for item in value)
        return self.beside(value)


class _Attributes:
    """An object's attributes, and what its containers held, to be given back."""

    def __init__(self, of: Any) -> None:
        self._of = of
        self._own = dict(vars(of))
        self._inside = [
            (item, copy.copy(item))
            for item in self._own.values()
            if isinstance(item, (dict, list, set))
        ]

    def restore(self) -> None:
        own = vars(self._of)
        own.clear()
        own.update(self._own)
        for item, held in self._inside:
            item.clear()
            if isinstance(item, list):
                item.extend(held)
            else:
                item.update(held)


@contextmanager
def swapped(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, fakes: LiveFakes
) -> Iterator[None]:
    """Model and optimizer on fakes while the context lasts, however it is left.

    Attributes of modules, the optimizer's groups, and the random numbers' states (torch's,
    Python's, numpy's) are given back, too.

    Raises:
        UsageError: a compiled or distributed model.
    """
    for module in model.modules():
        if type(module).__name__ in _WRAPPERS:
            raise UsageError(
                f"a model inside {type(module).__name__} cannot be simulated; "
                "give the module that it wraps, and call that in step()"
            )
    kept = [_Attributes(module) for module in model.modules()]
    if optimizer is not None:
        kept.append(_Attributes(optimizer))
        kept.extend(_Dict(group) for group in optimizer.param_groups)
    random_numbers = _RandomNumbers()
    try:
        _swap(model, optimizer, fakes)
        fakes.release()
        yield
    finally:
        for item in kept:
            item.restore()
        random_numbers.restore()


def _swap(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, fakes: LiveFakes
) -> None:
    for module in model.modules():
        own = vars(module)
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = fakes.parameter(parameter)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = fakes.known(buffer)
        for key, value in list(own.items()):
            if key not in ("_parameters", "_buffers", "_modules"):
                own[key] = fakes.beside(value)
    if optimizer is None:
        return
    state: defaultdict[Any, Any] = defaultdict(dict)
    for key, value in optimizer.state.items():
        state[fakes.beside(key)] = fakes.state(value)
    for group in optimizer.param_groups:
        group.update({key: fakes.state(value) for key, value in group.items()})
    for key, value in list(vars(optimizer).items()):
        if key not in ("state", "param_groups"):
            vars(optimizer)[key] = fakes.beside(value)
    optimizer.state = state


class _Dict(_Attributes):
    """A dict's content, to be given back."""

    def __init__(self, of: dict[str, Any]) -> None:
        self._dict, self._held = of, dict(of)

    def restore(self) -> None:
        self._dict.clear()
        self._dict.update(self._held)


class _RandomNumbers:
    """The states of the generators that a step may draw from."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._python = random.getstate()
        self._numpy: Any = sys.modules.get("numpy")
        self._drawn = self._numpy.random.get_state() if self._numpy is not None else None

    def restore(self) -> None:
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        random.setstate(self._python)
        if self._numpy is not None:
            self._numpy.random.set_state(self._drawn)
