"""The kernels of training steps beside products and attention, each over a range of sizes.

Each is timed as the op that a trace names, so that a prediction finds it by that name; sizes are
counted as a trace counts them (`profiler.calibration.described`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from profiler.analysis.cpu_cost import curve_name
from profiler.calibration.described import describe
from profiler.calibration.operands import Operands
from profiler.calibration.timing import Stopwatch
from profiler.hardware.device_profile import Curve

aten = torch.ops.aten

#: Elements of the tensor that a kernel works on, and of each of its rows.
SIZES = (1 << 11, 1 << 15, 1 << 18, 1 << 21, 1 << 23)
QUICK_SIZES = (1 << 11, 1 << 15)
ROW = 1024
#: A row of logits: a vocabulary.
WIDE_ROW = 32768

#: A kernel that would take longer than so many seconds is not tried at that size.
_LONGEST = 0.4

#: What dropout keeps: adapters drop a twentieth, models a tenth, and drawing takes the longer the
#: less one outcome prevails.
_KEPT = 0.93

_Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to time: `make(operands, rows, columns, dtype)` gives a call of it.

    Attributes:
        wide: whether its rows are as long as a vocabulary.
    """

    make: Callable[[Operands, int, int, torch.dtype], _Call]
    wide: bool = False


def _plain(run: Callable[..., Any], count: int) -> Kernel:
    """A kernel over `count` tensors of one shape."""

    def make(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
        first = operands.hot(rows, columns, dtype=dtype)
        others = [operands.cold(rows, columns, dtype=dtype) for _ in range(count - 1)]
        for place, other in enumerate(others):
            for _ in range(place + 1):  # none is another
                next(other)
        if count == 1:  # what it writes to is cold all the same
            return operands.call(run, operands.cold(rows, columns, dtype=dtype))
        return operands.call(run, first, *others)

    return Kernel(make)


def _scalar(run: Callable[..., Any], *, positive: bool = False) -> Kernel:
    """A kernel over one tensor, that the op before has written."""

    def make(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
        first = operands.hot(rows, columns, dtype=dtype)
        if positive:  # what is not a number takes a slow path
            first.abs_()
        kept = operands.cold(rows, columns, dtype=dtype)
        return operands.call(lambda one, _: run(one), first, kept)

    return Kernel(make)


def _cast(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    """To this dtype, from the other of the two that mixed precision knows."""
    other = torch.bfloat16 if dtype == torch.float32 else torch.float32
    first = operands.hot(rows, columns, dtype=other)
    rest = operands.cold(rows, columns, dtype=dtype)
    return operands.call(lambda one, _: one.to(dtype), first, rest)


def _heads_first(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    """Heads before positions, as attention wants its operands."""
    width = 64
    shape = (1, max(1, rows), columns // width, width)
    source = operands.cold(*shape, dtype=dtype)
    return operands.call(
        lambda one: one.transpose(1, 2).clone(memory_format=torch.contiguous_format), source
    )


def _askew(run: Callable[..., Any]) -> Kernel:
    """A kernel over two tensors, the second of them transposed."""

    def make(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
        first = operands.hot(rows, columns, dtype=dtype)
        second = operands.cold(columns, rows, dtype=dtype)
        return operands.call(lambda one, two: run(one, two.t()), first, second)

    return Kernel(make)


def _concatenate(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    half = (rows, columns // 2)
    first = operands.hot(*half, dtype=dtype)
    return operands.call(
        lambda one, other: torch.cat((one, other), -1), first, operands.cold(*half, dtype=dtype)
    )


def _slice_backward(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    half = columns // 2
    gradient = operands.cold(rows, half, dtype=dtype)
    return operands.call(
        lambda one: aten.slice_backward(one, [rows, columns], 1, 0, half, 1), gradient
    )


def _layer_norm(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    weight, bias = (operands.hot(columns, dtype=dtype) for _ in range(2))
    source = operands.cold(rows, columns, dtype=dtype)
    return operands.call(
        lambda one: aten.native_layer_norm(one, [columns], weight, bias, 1e-5), source
    )


def _layer_norm_backward(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    weight, bias = (operands.hot(columns, dtype=dtype) for _ in range(2))
    gradient = operands.hot(rows, columns, dtype=dtype)
    mean, scale = aten.native_layer_norm(gradient, [columns], weight, bias, 1e-5)[1:]
    mask = [True, False, False]
    return operands.call(
        lambda one, two: aten.native_layer_norm_backward(
            one, two, [columns], mean, scale, weight, bias, mask
        ),
        gradient,
        operands.cold(rows, columns, dtype=dtype),
    )


def _softmax(run: Callable[..., Any]) -> Kernel:
    def make(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
        source = operands.cold(rows, columns, dtype=dtype)
        return operands.call(lambda one: run(one, -1, False), source)

    return Kernel(make, wide=run is aten._log_softmax)


def _softmax_backward(run: Callable[..., Any]) -> Kernel:
    def make(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
        gradient = operands.hot(rows, columns, dtype=dtype)
        output = operands.cold(rows, columns, dtype=dtype)
        return operands.call(lambda one, two: run(one, two, -1, dtype), gradient, output)

    return Kernel(make, wide=run is aten._log_softmax_backward_data)


def _nll_loss(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    target = torch.randint(0, columns, (rows,))
    source = operands.cold(rows, columns, dtype=dtype)
    return operands.call(lambda one: aten.nll_loss_forward(one, target, None, 1, -100), source)


def _nll_loss_backward(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    target = torch.randint(0, columns, (rows,))
    gradient, weight = torch.ones((), dtype=dtype), torch.ones((), dtype=dtype)
    source = operands.cold(rows, columns, dtype=dtype)
    return operands.call(
        lambda one: aten.nll_loss_backward(gradient, one, target, None, 1, -100, weight), source
    )


def _embedding(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    words = operands.hot(4 * rows, columns, dtype=dtype)
    indices = torch.randint(0, 4 * rows, (rows,))
    return operands.call(
        lambda one, _: aten.embedding(one, indices), words, operands.cold(1, dtype=dtype)
    )


def _embedding_backward(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    # A vocabulary is many times a batch's tokens: most of it is filled with zeros.
    tokens = max(1, rows // 8)
    indices = torch.randint(0, rows, (tokens,))
    gradient = operands.cold(tokens, columns, dtype=dtype)
    return operands.call(
        lambda one: aten.embedding_dense_backward(one, indices, rows, -1, False), gradient
    )


def _half(rows: int, columns: int) -> torch.Tensor:
    """A mask as a causal one is: on and off in long stretches."""
    return (torch.arange(columns) < columns // 2).expand(rows, columns).contiguous()


def _masked(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    mask = _half(rows, columns)
    source = operands.cold(rows, columns, dtype=dtype)
    return operands.call(lambda one: torch.masked_fill(one, mask, 0.0), source)


def _where(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    mask = _half(rows, columns)
    source = operands.cold(rows, columns, dtype=dtype)
    zero = torch.zeros((), dtype=dtype)
    return operands.call(lambda one: torch.where(mask, one, zero), source)


def _list(run: Callable[[list[torch.Tensor]], Any]) -> Kernel:
    """An op over a list of tensors, here of one."""

    def make(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
        return operands.call(lambda one: run([one]), operands.cold(rows, columns, dtype=dtype))

    return Kernel(make)


def _adamw(operands: Operands, rows: int, columns: int, dtype: torch.dtype) -> _Call:
    """A parameter, its gradient and its two moments, none of which was touched in the step."""
    held = [operands.cold(rows, columns, dtype=dtype) for _ in range(4)]
    for place, one in enumerate(held):
        for _ in range(place):
            next(one)
    step = torch.ones(())

    def run(*tensors: torch.Tensor) -> None:
        parameters, gradients, first, second = ([one] for one in tensors)
        torch._fused_adamw_(
            parameters, gradients, first, second, [], [step],
            amsgrad=False, lr=1e-6, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
            maximize=False,
        )  # fmt: skip

    return operands.call(run, *held)


#: By no particular order. In-place ops multiply and divide by one: values stay what they are.
KERNELS: tuple[Kernel, ...] = (
    *(
        _plain(run, 2)
        for run in (
            torch.add,
            torch.mul,
            torch.sub,
            torch.div,
            torch.Tensor.add_,
            torch.Tensor.copy_,
            aten.silu_backward,
            aten.gelu_backward,
            aten.tanh_backward,
            aten.sigmoid_backward,
            lambda one, two: aten.threshold_backward(one, two, 0),
            lambda one, two: torch.Tensor.lerp_(one, two, 0.1),
        )
    ),
    *(
        _plain(run, 3)
        for run in (
            lambda one, two, three: one.addcmul_(two, three, value=0.0),
            lambda one, two, three: one.addcdiv_(two, three, value=0.0),
        )
    ),
    *(
        _plain(run, 1)
        for run in (
            torch.Tensor.zero_,
            lambda one: one.fill_(1.0),
            lambda one: one.bernoulli_(_KEPT),
            lambda one: torch.sum(one, 0),
            lambda one: torch.mean(one, -1, keepdim=True),
            torch.linalg.vector_norm,
        )
    ),
    *(
        _scalar(run)
        for run in (
            functional.silu,
            functional.gelu,
            torch.relu,
            torch.tanh,
            torch.sigmoid,
            torch.neg,
            torch.abs,
            torch.cos,
            torch.sin,
            torch.exp,
            torch.zeros_like,
            torch.ones_like,
            lambda one: one.pow(2),
            lambda one: one.div_(1.0),
            lambda one: one.mul_(1.0),
            lambda one: one.new_zeros(one.shape),
            lambda one: one.eq(0),
        )
    ),
    _scalar(torch.sqrt, positive=True),
    _scalar(torch.rsqrt, positive=True),
    *(
        Kernel(make)
        for make in (
            _cast,
            _heads_first,
            _concatenate,
            _slice_backward,
            _layer_norm,
            _layer_norm_backward,
            _embedding,
            _embedding_backward,
            _masked,
            _where,
            _adamw,
        )
    ),
    *(
        _askew(run)
        for run in (
            torch.add,
            torch.mul,
            torch.Tensor.copy_,
            lambda _, two: two.clone(memory_format=torch.contiguous_format),
        )
    ),
    _softmax(aten._softmax),
    _softmax(aten._log_softmax),
    _softmax_backward(aten._softmax_backward_data),
    _softmax_backward(aten._log_softmax_backward_data),
    Kernel(_nll_loss, wide=True),
    Kernel(_nll_loss_backward, wide=True),
    _list(lambda one: torch._foreach_mul_(one, 1.0)),
    _list(torch._foreach_norm),
)


def measure(
    watch: Stopwatch,
    operands: Operands,
    dtypes: tuple[torch.dtype, ...],
    *,
    quick: bool,
    done: Callable[[], None] = lambda: None,
) -> list[Curve]:
    """Time every kernel at every size for each dtype; `done` is called after each curve.

    A kernel that this torch or this CPU does not have is left out.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for dtype in dtypes:
        for kernel in KERNELS:
            for op, nbytes, seconds in _points(watch, operands, kernel, dtype, quick=quick):
                # Two types can give one size (what an op returns may be of a third).
                points = found.setdefault(op, {})
                points[nbytes] = min(seconds, points.get(nbytes, seconds))
            done()
    return [
        Curve(op=op, dtype=dtype, points=sorted(points.items()))
        for (op, dtype), points in sorted(found.items())
    ]


def _points(
    watch: Stopwatch, operands: Operands, kernel: Kernel, dtype: torch.dtype, *, quick: bool
) -> Iterator[tuple[tuple[str, str], int, float]]:
    """(op and dtype, bytes, seconds) of one kernel at each size."""
    columns = WIDE_ROW if kernel.wide and not quick else ROW
    last = 0.0
    for size in QUICK_SIZES if quick else SIZES:
        if 4 * last > _LONGEST:
            return
        try:
            call = kernel.make(operands, max(1, size // columns), columns, dtype)
            op = describe(call)
        except (RuntimeError, NotImplementedError):
            return
        if not op.nbytes:  # it has no kernel
            return
        last = watch.seconds(call)
        yield (curve_name(op), op.dtype), op.nbytes, last
