"""An op that is recognised gives what `FakeTensorMode` gives, and the steps the same trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import fitted, write
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from profiler.bench.simulated import simulate
from profiler.hardware import devices
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import fake_dispatch
from profiler.subject.fake_dispatch import FakeDispatch
from profiler.subject.subject import build
from profiler.trace import Trace

aten = torch.ops.aten


class Side:
    """A mode, with or without the memory of ops."""

    def __init__(self, *, remembers: bool) -> None:
        self.mode = FakeTensorMode()
        self.run: Callable[..., Any] = FakeDispatch(self.mode) if remembers else _plainly

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        with self.mode:
            return torch.empty(shape, dtype=dtype)


def _plainly(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def described(out: Any, args: Any) -> Any:
    """All of a result that anything could ask for; its storage by whose it is."""
    if isinstance(out, (tuple, list)):
        return [described(one, args) for one in out]
    if not isinstance(out, FakeTensor):
        return out
    keys = [one.untyped_storage()._cdata for one in args if isinstance(one, torch.Tensor)]
    key = out.untyped_storage()._cdata
    return (
        out.shape,
        out.stride(),
        out.storage_offset(),
        out.dtype,
        out.fake_device,
        out.requires_grad,
        out.untyped_storage().nbytes(),
        keys.index(key) if key in keys else None,
        [one is out for one in args],
        torch._C._dispatch_keys(out),
        sorted(vars(out)),
    )


#: Ops with a result of every kind: new, in place, a view, several, in lists, of a mixed layout.
CALLS: list[tuple[str, Callable[[Side], tuple[Any, tuple[Any, ...], dict[str, Any]]]]] = [
    ("mm", lambda s: (aten.mm.default, (s.tensor(4, 8), s.tensor(8, 3)), {})),
    ("mul", lambda s: (aten.mul.Tensor, (s.tensor(4, 1), s.tensor(1, 8)), {})),
    ("mixed", lambda s: (aten.add.Tensor, (s.tensor(4), s.tensor(4, dtype=torch.half)), {})),
    ("number", lambda s: (aten.mul.Tensor, (s.tensor(4, dtype=torch.int64), 2.0), {})),
    ("whole", lambda s: (aten.mul.Tensor, (s.tensor(4, dtype=torch.int64), 2), {})),
    ("add_", lambda s: (aten.add_.Tensor, (s.tensor(4), s.tensor(4)), {"alpha": 2})),
    ("t", lambda s: (aten.t.default, (s.tensor(4, 8),), {})),
    ("slice", lambda s: (aten.slice.Tensor, (s.tensor(4, 8), 0, 1, 3), {})),
    ("split", lambda s: (aten.split.Tensor, (s.tensor(4, 8), 3, 1), {})),
    ("reshaped", lambda s: (aten._unsafe_view.default, (s.tensor(4, 8), [8, 4]), {})),
    ("dropout", lambda s: (aten.native_dropout.default, (s.tensor(4, 8), 0.1, True), {})),
    ("cat", lambda s: (aten.cat.default, ([s.tensor(4, 8), s.tensor(2, 8)],), {})),
    ("sqrts", lambda s: (aten._foreach_sqrt.default, ([s.tensor(4), s.tensor(2, 8)],), {})),
    ("zeros_", lambda s: (aten._foreach_zero_.default, ([s.tensor(4), s.tensor(2)],), {})),
    ("transposed", lambda s: (aten.clone.default, (s.tensor(4, 8).t(),), {})),
    ("copy", lambda s: (aten._to_copy.default, (s.tensor(4, 8),), {"dtype": torch.bfloat16})),
    ("empty", lambda s: (aten.new_empty.default, (s.tensor(0, 8), [0, 3]), {})),
    ("grown", lambda s: (aten.expand.default, (s.tensor(4, 1), [4, 8]), {})),
]


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])
def test_a_result_is_the_modes_own_at_first_and_when_it_is_known(
    call: Callable[[Side], Any],
) -> None:
    plain, quick = Side(remembers=False), Side(remembers=True)
    seen = []
    for side in (plain, quick, quick):
        func, args, kwargs = call(side)
        with side.mode:
            out = side.run(func, args, kwargs)
        seen.append(described(out, args))
    assert seen[0] == seen[1] == seen[2]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
    st.booleans(),
)
def test_pairs_of_any_shapes_are_told_apart(
    first: list[int], second: list[int], dtype: torch.dtype, turned: bool
) -> None:
    """One memory for all of them: whatever it does not tell apart would come out wrong."""
    answers = []
    for side in (Side(remembers=False), KNOWING):
        one, two = side.tensor(*first), side.tensor(*second, dtype=dtype)
        if turned:
            one = one.permute(*reversed(range(one.dim())))
        with side.mode:
            try:
                answers.append(described(side.run(aten.mul.Tensor, (one, two), {}), (one, two)))
            except RuntimeError as error:
                answers.append(str(error))
    assert answers[0] == answers[1]


KNOWING = Side(remembers=True)


def test_an_op_whose_result_is_a_matter_of_values_is_left_to_the_mode() -> None:
    side = Side(remembers=True)
    with side.mode:
        literal = torch.tensor(3.0)
        assert side.run(aten._local_scalar_dense.default, (literal,), {}) == 3.0
        other = side.run(aten.mul.Tensor, (literal, 2.0), {})
    assert other.constant is not None
    assert other.constant.item() == 6.0


def test_tensors_made_for_inference_are_told_apart() -> None:
    side = Side(remembers=True)
    with side.mode:
        args = (side.tensor(4), side.tensor(4))
        for _ in range(2):
            assert not side.run(aten.mul.Tensor, args, {}).is_inference()
            with torch.inference_mode():
                assert side.run(aten.mul.Tensor, args, {}).is_inference()


def test_what_is_made_is_its_callers_alone() -> None:
    side = Side(remembers=True)
    with side.mode:
        args = (side.tensor(4), side.tensor(4))
        one = side.run(aten.mul.Tensor, args, {})
        two = side.run(aten.mul.Tensor, args, {})
        three = side.run(aten.mul.Tensor, args, {})
    keys = {tensor.untyped_storage()._cdata for tensor in (*args, one, two, three)}
    assert len(keys) == 5
    three.nonzero_memo = 7
    with side.mode:
        assert side.run(aten.mul.Tensor, args, {}).nonzero_memo is None


def _trace(spec: RunSpec) -> Trace:
    cell = resolve(spec)
    return simulate(build(cell), cell.spec, devices.device(spec.device))


@pytest.mark.parametrize(
    "method", ["full", "lora", "qlora", "adalora", "prefix-tuning", "vblora", "fourierft", "boft"]
)
@pytest.mark.parametrize("checkpointing", ["none", "non-reentrant"])
def test_steps_give_the_same_trace_with_it_and_without(
    method: str, checkpointing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(
        model=write(tmp_path)["llama"],
        method=fitted(method),
        batch_size=2,
        seq_len=16,
        stack="script",
        device="rtx-4090",
        padded=True,
        checkpointing=None if method == "prefix-tuning" else checkpointing,
    )
    quick = _trace(spec)
    monkeypatch.setattr(fake_dispatch, "_is_plain", lambda func: False)
    plain = _trace(spec)
    assert quick == plain
    assert len(plain.ops) > 50
