"""The mean step's time of a run of many lengths.

Only a simulated step has its ops in their order, which the launch queue needs. The time of any
other length is between those of the simulated lengths next to it, in proportion.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from profiler.analysis import step_time
from profiler.hardware.devices import Device
from profiler.lengths import Shape
from profiler.record import Kernel, Time
from profiler.trace import Op


def predict(
    ops: Sequence[Sequence[tuple[Op, int]]],
    simulated: Sequence[bool],
    order: Sequence[int],
    shapes: Sequence[Shape],
    device: Device,
    tokens: int,
) -> Time:
    """The mean step's time.

    Args:
        ops: of each distinct step, with how often each is run.
        simulated: which of these steps were, so that their ops are in order.
        order: the distinct step that each step of the run is.
        shapes: of each step of the run.
        tokens: positions that all steps train on.
    """
    wanted: Counter[tuple[int, Shape]] = Counter(zip(order, shapes, strict=True))
    known: defaultdict[tuple[int, bool], dict[int, int]] = defaultdict(dict)
    for index, shape in wanted:
        if simulated[index]:
            known[shape.size, shape.padded][shape.length] = index
    weights: Counter[int] = Counter()
    for (index, shape), count in wanted.items():
        of_class = known[shape.size, shape.padded]
        shares = {index: 1.0} if simulated[index] else between(shape.length, of_class)
        for one, share in shares.items():
            weights[one] += count * share  # type: ignore[assignment]
    parts = [
        (step_time.predict_ops([op for op, _ in ops[index]], device, 0), weight)
        for index, weight in weights.items()
    ]
    return mean(parts, len(order), tokens)


def between(length: int, known: Mapping[int, int]) -> dict[int, float]:
    """Shares of the known lengths that make up another: those next to it, or the nearest.

    Args:
        known: what to give a share to, by length; not empty.

    >>> between(30, {20: 7, 60: 8})
    {7: 0.75, 8: 0.25}
    """
    below = max((one for one in known if one <= length), default=None)
    above = min((one for one in known if one >= length), default=None)
    if below is None or above is None or below == above:
        nearest = below if above is None else above
        assert nearest is not None
        return {known[nearest]: 1.0}
    share = (length - below) / (above - below)
    return {known[below]: 1 - share, known[above]: share}


def mean(parts: Iterable[tuple[Time, float]], steps: int, tokens: int) -> Time:
    """All steps' predicted time over their number; so are the kernels, whose counts, FLOPs and
    bytes are rounded.

    Args:
        parts: the time of a step, and how many steps it stands for.
        tokens: positions that all steps train on.
    """
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    modules: dict[str, Counter[str]] = defaultdict(Counter)
    kernels: dict[tuple[str, str], list[float]] = {}
    for time, times in parts:
        share = times / steps
        for name in ("phases", "bound", "outside_kernels"):
            for key, seconds in getattr(time, name).items():
                tables[name][key] += seconds * share
        for module, phases in time.modules.items():
            for phase, seconds in phases.items():
                modules[module][phase] += seconds * share  # type: ignore[assignment]
        for kernel in time.kernels:
            total = kernels.setdefault((kernel.phase, kernel.name), [0.0] * 4)
            for place, number in enumerate(_numbers(kernel)):
                total[place] += number * share
    step = sum(tables["phases"].values())
    return Time(
        source="predicted",
        step=step,
        phases=dict(tables["phases"]),
        tokens_per_second=tokens / steps / step if step else 0.0,
        bound=dict(tables["bound"]),
        outside_kernels=dict(tables["outside_kernels"]),
        modules={module: dict(phases) for module, phases in modules.items()},
        kernels=sorted(
            (
                Kernel(
                    name=name,
                    op=name,
                    phase=phase,
                    count=round(count),
                    seconds=seconds,
                    flops=round(flops),
                    bytes=round(nbytes),
                )
                for (phase, name), (count, seconds, flops, nbytes) in kernels.items()
            ),
            key=lambda kernel: -kernel.seconds,
        ),
    )


def _numbers(kernel: Kernel) -> tuple[float, float, float, float]:
    return kernel.count, kernel.seconds, kernel.flops, kernel.bytes
