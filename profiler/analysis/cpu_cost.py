"""A step's time on a CPU that was calibrated: op after op, each as long as its like took there.

A CPU does not queue: a step is the sum of its ops. An op is looked up in the device profile
(`python -m profiler.calibrate`): products by their sizes, fused attention by how many keys a query
meets, every other kernel by its name and its bytes. Between the sizes that were timed everything is
interpolated in logarithms; outside of them rates stay what they are at the last one. To that come
what the host does beside each op, and the pages that the system gives anew.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from profiler.analysis.fresh_memory import fresh_bytes
from profiler.hardware.device_profile import DeviceProfile, Layout
from profiler.record import Kernel, Time
from profiler.trace import PHASES, Op, Trace

#: Types that were not timed, and what stands for them.
_LIKE = {"float16": "bfloat16", "float64": "float32", "int64": "float32", "int32": "float32"}

#: An elementwise kernel stands for one that was not timed.
_USUAL = "aten.mul"


#: Ops that multiply: the kind of product that was timed for them, and which of the tensors among
#: their arguments is the first factor.
_PRODUCTS = {
    "aten.mm": ("mm", 0),
    "aten.addmm": ("mm", 1),
    "aten.bmm": ("bmm", 0),
    "aten.baddbmm": ("bmm", 1),
}

#: By which of the factors are transposed: none, the first, the second, both.
_LAYOUTS: tuple[Layout, ...] = ("nn", "tn", "nt", "tn")

#: What is added to the name of a kernel whose operands do not lie alike.
_ASKEW = ", transposed"


def curve_name(op: Op) -> str:
    """The name of the curve that an op's time is on."""
    return op.name + _ASKEW if op.transposed else op.name


@dataclass(frozen=True, slots=True)
class Factors:
    """The sizes of a matrix product: `batch` times (m, k) by (k, n)."""

    batch: int
    m: int
    n: int
    k: int
    layout: Layout = "nn"


class CpuCost:
    """What ops take on the machine of a profile."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile

    def op(self, op: Op) -> float:
        """Seconds of an op's kernel; nothing if it has none."""
        if not op.nbytes:
            return 0.0
        if len(op.product) == 4:
            kind, factors = _PRODUCTS.get(op.name, (op.name, 0))
            batch, m, n, k = op.product
            layout = _LAYOUTS[op.transposed >> factors & 3]
            return self.product(kind, op.dtype, Factors(batch, m, n, k, layout))
        if op.flops and "attention" in op.name:
            return self.attention(op.name, op.dtype, op.flops, op.nbytes)
        return self.kernel(curve_name(op), op.dtype, op.nbytes)

    def host(self, op: Op) -> float:
        """Seconds of the host beside an op's kernel."""
        host = self.profile.host
        seconds: float = getattr(host, op.phase)
        return seconds + host.tensor * op.items * (op.phase == "optimizer")

    def kernel(self, name: str, dtype: str, nbytes: int) -> float:
        """Seconds of a kernel that reads and writes `nbytes`."""
        like = _LIKE.get(dtype, "float32")
        usual = _USUAL + _ASKEW if name.endswith(_ASKEW) else _USUAL
        for key in (
            *((name, dtype), (name, like), (name, "")),
            *((usual, dtype), (usual, like), (_USUAL, dtype), (_USUAL, like)),
        ):
            if key in self._curves:
                return along(self._curves[key], nbytes)
        return nbytes / self._copy_rate

    def product(self, op: str, dtype: str, factors: Factors) -> float:
        """Seconds of a matrix product of kind `op` ("mm", "bmm", ...)."""
        grids = self._grids
        for key in (
            (op, dtype, factors.layout),
            (op, dtype, "nn"),
            (op, _LIKE.get(dtype, "float32"), factors.layout),
            ("mm", dtype, factors.layout),
            ("mm", "float32", factors.layout),
            ("mm", "float32", "nn"),
        ):
            if key in grids:
                sizes = (factors.m, factors.n, factors.k)
                flops = 2 * math.prod(sizes) * factors.batch
                return flops / grids[key].rate(sizes)
        raise KeyError(op)

    def attention(self, op: str, dtype: str, flops: int, nbytes: int) -> float:
        """Seconds of a fused attention."""
        for key in ((op, dtype), (op, "float32"), (op, "bfloat16")):
            if key in self._rates:
                curve = self._rates[key]
                return flops / _between(curve, flops / nbytes)
        return self.kernel(op, dtype, nbytes)

    @cached_property
    def _copy_rate(self) -> float:
        """Bytes/s of the largest copy, read and written."""
        largest = max(self.profile.copies, key=lambda copy: copy.nbytes)
        return 2 * largest.nbytes / largest.seconds

    @cached_property
    def _curves(self) -> dict[tuple[str, str], list[tuple[float, float]]]:
        return {
            (curve.op, curve.dtype): [(float(size), seconds) for size, seconds in curve.points]
            for curve in self.profile.kernels
        }

    @cached_property
    def _grids(self) -> dict[tuple[str, str, str], Grid]:
        points: dict[tuple[str, str, str], dict[tuple[int, int, int], float]] = defaultdict(dict)
        for one in self.profile.products:
            rate = 2 * one.batch * one.m * one.n * one.k / one.seconds
            points[one.op, one.dtype, one.layout][one.m, one.n, one.k] = rate
        return {key: Grid(found) for key, found in points.items()}

    @cached_property
    def _rates(self) -> dict[tuple[str, str], list[tuple[float, float]]]:
        points = defaultdict(list)
        for one in self.profile.attention:
            points[one.op, one.dtype].append((one.intensity, one.flops / one.seconds))
        return {key: sorted(found) for key, found in points.items()}


def predict(trace: Trace, profile: DeviceProfile, tokens: int) -> Time:
    """The time of the first measured step on the machine of a profile.

    Outside of kernels are the host and the pages that the system gives anew. `bound` counts what
    multiplies as compute, and everything else that an op does as memory.

    Args:
        tokens: positions that one optimizer step trains on, for tokens per second.
    """
    cost = CpuCost(profile)
    ops = [op for op in trace.ops if op.step == 1]
    kernels: dict[tuple[str, str], Kernel] = {}
    modules: dict[str, dict[str, float]] = {}
    inside, outside = dict.fromkeys(PHASES, 0.0), dict.fromkeys(PHASES, 0.0)
    bound = {"launch": 0.0, "memory": 0.0, "compute": 0.0}
    for op in ops:
        host, seconds = cost.host(op), cost.op(op)
        outside[op.phase] += host
        inside[op.phase] += seconds
        bound["launch"] += host
        bound["compute" if op.flops else "memory"] += seconds
        if not seconds:
            continue
        module = modules.setdefault(op.module, {})
        module[op.phase] = module.get(op.phase, 0.0) + seconds
        kernel = kernels.get((op.phase, op.name))
        if kernel is None:
            kernel = kernels[op.phase, op.name] = Kernel(
                name=op.name, op=op.name, phase=op.phase, count=0, seconds=0.0, flops=0, bytes=0
            )
        kernel.count += 1
        kernel.seconds += seconds
        kernel.flops += op.flops
        kernel.bytes += op.nbytes
    for phase, nbytes in fresh_bytes(trace).items():
        outside[phase] += nbytes * profile.fault
        bound["memory"] += nbytes * profile.fault
    phases = {phase: inside[phase] + outside[phase] for phase in PHASES}
    step = sum(phases.values())
    return Time(
        source="predicted",
        step=step,
        phases=phases,
        tokens_per_second=tokens / step if step else 0.0,
        bound=bound,
        kernels=sorted(kernels.values(), key=lambda kernel: -kernel.seconds),
        outside_kernels=outside,
        modules=modules,
    )


def approximation(profile: DeviceProfile) -> str:
    """What a record with such a time says of it."""
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    text = (
        f"The step time is predicted for {threads} of a calibrated {profile.name} with nothing "
        "else running: each op as long as one of its kind and size took, interpolated between the "
        "sizes that were timed."
    )
    return text + " The calibration was a quick one, for a try." * profile.quick


class Grid:
    """Rates over (m, n, k), each of which takes the same few values.

    Args:
        rates: FLOP/s by (m, n, k). A combination that is missing has the rate of the next smaller.
    """

    def __init__(self, rates: Mapping[tuple[int, int, int], float]) -> None:
        self._rates = dict(rates)
        self._axes = [sorted({key[axis] for key in rates}) for axis in range(3)]

    def rate(self, sizes: tuple[int, int, int]) -> float:
        """FLOP/s at these sizes: trilinear in logarithms, at the grid's edge what it is there."""
        ends = [_ends(axis, size) for axis, size in zip(self._axes, sizes, strict=True)]
        total = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            weight = 1.0
            for (_, _, share), side in zip(ends, corner, strict=True):
                weight *= share if side else 1 - share
            if weight:
                a, b, c = (end[side] for end, side in zip(ends, corner, strict=True))
                total += weight * math.log(self._at(int(a), int(b), int(c)))
        return math.exp(total)

    def _at(self, m: int, n: int, k: int) -> float:
        while (m, n, k) not in self._rates:
            largest = max(m, n, k)
            m, n, k = (self._below(axis, size, largest) for axis, size in enumerate((m, n, k)))
        return self._rates[m, n, k]

    def _below(self, axis: int, size: int, largest: int) -> int:
        place = self._axes[axis].index(size)
        return self._axes[axis][max(0, place - 1)] if size == largest else size


def along(curve: Sequence[tuple[float, float]], size: float) -> float:
    """Seconds at a size of a curve of (size, seconds).

    Below the first size seconds are what they are there, since a call takes what it takes; beyond
    the last one they grow with the size.
    """
    last, seconds = curve[-1]
    if size > last:
        return seconds * size / last
    return _between(curve, size)


def _between(curve: Sequence[tuple[float, float]], at: float) -> float:
    """The value at `at` of (place, value), between places in logarithms, else that at the end."""
    places = [place for place, _ in curve]
    low, high, share = _ends(places, at)
    values = dict(curve)
    return math.exp((1 - share) * math.log(values[low]) + share * math.log(values[high]))


def _ends(axis: Sequence[float], at: float) -> tuple[float, float, float]:
    """The two values of an axis around `at`, and where it is between their logarithms."""
    if at <= axis[0]:
        return axis[0], axis[0], 0.0
    if at >= axis[-1]:
        return axis[-1], axis[-1], 0.0
    place = bisect.bisect_right(axis, at)
    low, high = axis[place - 1], axis[place]
    return low, high, math.log(at / low) / math.log(high / low)
