"""A GPU's device profile, by `triton.testing.do_bench`. No GPU has run this file.

`do_bench` empties the L2 cache before each call, so that operands come from memory, as
`operands.py` has it on a CPU. Copies run in a Triton kernel of our own (`copy_kernel.py`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from profiler.calibration import products
from profiler.calibration.described import describe
from profiler.environment import environment
from profiler.hardware.device_profile import (
    Attention,
    Copy,
    Curve,
    DeviceProfile,
    Host,
    Layout,
    Product,
)

#: Sizes of m, n and k, of attention's queries and keys, and bytes of a copied block.
SIZES = (8, 64, 512, 4096)
QUICK_SIZES = (64, 512)
LENGTHS = (128, 512, 2048)
QUICK_LENGTHS = (128,)
COPIES = tuple(1 << power for power in range(14, 31, 2))
QUICK_COPIES = (1 << 20, 1 << 24)
HEADS = 32
WIDTH = 64

#: Calls in a row whose issue is timed.
_CALLS = 200

#: Warm-up and repetitions of a figure, in ms.
_WARM_UP, _REPEAT = 5, 20


def calibrate(*, quick: bool, part: Callable[[str], None] = lambda name: None) -> DeviceProfile:
    """Measure the first CUDA device. `part` is called with the name of each part."""
    started = time.perf_counter()
    dtypes = [torch.float32, torch.float16]
    if torch.cuda.is_bf16_supported():
        dtypes.append(torch.bfloat16)
    with torch.no_grad():
        part("products")
        timed = [one for dtype in dtypes for one in _products(dtype, quick=quick)]
        part("kernels")
        curves = [_elementwise(dtype, quick=quick) for dtype in dtypes]
        part("copies")
        copied = _copies(quick=quick)
    part("attention")
    fused = [one for dtype in dtypes for one in _attention(dtype, quick=quick)]
    part("launches")
    host = _host()
    return DeviceProfile(
        schema=1,
        kind="cuda",
        name=torch.cuda.get_device_name(),
        threads=1,
        clock="cuda_event",
        statistic="median",
        quick=quick,
        seconds=round(time.perf_counter() - started, 1),
        environment=environment("cuda"),
        products=timed,
        kernels=curves,
        attention=fused,
        copies=copied,
        host=host,
        fault=0.0,
    )


def seconds(call: Callable[[], Any]) -> float:
    """Median seconds of a call on the device, its operands not in the L2 cache."""
    from triton.testing import do_bench

    return float(do_bench(call, warmup=_WARM_UP, rep=_REPEAT, return_mode="median")) / 1e3


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _products(dtype: torch.dtype, *, quick: bool) -> list[Product]:
    found = []
    sizes = QUICK_SIZES if quick else SIZES
    for layout in products.LAYOUTS:
        for m in sizes:
            for n in sizes:
                for k in sizes:
                    first, second = _factors(layout, m, n, k, dtype)
                    found.append(
                        Product(
                            op="mm",
                            dtype=_name(dtype),
                            layout=layout,
                            batch=1,
                            m=m,
                            n=n,
                            k=k,
                            seconds=seconds(lambda one=first, two=second: one @ two),  # type: ignore[misc]
                        )
                    )
    return found


def _factors(
    layout: Layout, m: int, n: int, k: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.float32).to(dtype)

    first = random(k, m).t() if layout == "tn" else random(m, k)
    second = random(n, k).t() if layout == "nt" else random(k, n)
    return first, second


def _elementwise(dtype: torch.dtype, *, quick: bool) -> Curve:
    """Products of elements, for all that is bound by memory."""
    points = []
    for nbytes in QUICK_COPIES if quick else COPIES:
        one, two = (
            torch.ones(nbytes // dtype.itemsize, device="cuda", dtype=dtype) for _ in range(2)
        )
        points.append((3 * nbytes, seconds(lambda a=one, b=two: a * b)))  # type: ignore[misc]
    return Curve(op="aten.mul", dtype=_name(dtype), points=points)


def _copies(*, quick: bool) -> list[Copy]:
    from profiler.calibration.copy_kernel import copy

    found = []
    for nbytes in QUICK_COPIES if quick else COPIES:
        source = torch.ones(nbytes // 4, device="cuda", dtype=torch.float32)
        target = torch.empty_like(source)
        found.append(
            Copy(nbytes=nbytes, seconds=seconds(lambda a=source, b=target: copy(a, b)))  # type: ignore[misc]
        )
    return found


def _attention(dtype: torch.dtype, *, quick: bool) -> list[Attention]:
    found = []
    for length in QUICK_LENGTHS if quick else LENGTHS:
        query, key, value = (
            torch.randn(1, HEADS, length, WIDTH, device="cuda").to(dtype).requires_grad_()
            for _ in range(3)
        )
        out = scaled_dot_product_attention(query, key, value, is_causal=True)
        forward = partial(_forward, query, key, value)
        backward = partial(
            torch.autograd.grad, out, (query, key, value), torch.ones_like(out), retain_graph=True
        )
        for call in (forward, backward):
            op = describe(call)
            if op.flops:
                found.append(
                    Attention(
                        op=op.name,
                        dtype=_name(dtype),
                        intensity=op.flops / op.nbytes,
                        flops=op.flops,
                        seconds=seconds(call),
                    )
                )
    return found


def _forward(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    with torch.no_grad():
        scaled_dot_product_attention(query, key, value, is_causal=True)


def _host() -> Host:
    """Seconds of the host until an op is launched, by calls that leave the device nothing to do."""
    tensor = torch.ones(16, device="cuda", requires_grad=True)
    forward, backward, optimizer = [], [], []
    for _ in range(10):
        begin = _idle()
        chain = _chain(tensor)
        forward.append(time.perf_counter() - begin)
        begin = _idle()
        torch.autograd.grad(chain.sum(), tensor)
        backward.append(time.perf_counter() - begin)
        begin = _idle()
        _in_place(tensor)
        optimizer.append(time.perf_counter() - begin)
    return Host(
        forward=statistics.median(forward) / _CALLS,
        backward=statistics.median(backward) / _CALLS,
        optimizer=statistics.median(optimizer) / _CALLS,
        tensor=0.0,  # `profiler.hardware.calibrated` keeps every card's
    )


def _idle() -> float:
    """The time at which the device has nothing left to do."""
    torch.cuda.synchronize()
    return time.perf_counter()


def _chain(tensor: torch.Tensor) -> torch.Tensor:
    for _ in range(_CALLS):
        tensor = tensor * 1.0
    return tensor


@torch.no_grad()
def _in_place(tensor: torch.Tensor) -> None:
    for _ in range(_CALLS):
        tensor.mul_(1.0)
