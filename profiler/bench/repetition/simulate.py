"""A simulation of a deep model by three shallow ones, if it is proven to be the same.

What is built is built: the model with its method, all of its layers, and what loading it allocates.
Its steps are written from those of models with a few of its layers:

1. The layers are compared by all that their modules hold (`likeness`). The model must be a
   shallower one with more layers of the same kinds in one place.
2. Three shallow models run (`stream`), and a pattern is proven on them (`pattern`).
3. The steps are written (`writing`): each allocation, free and op, so that the trace is the one
   that the whole model would have given, and everything after it is the same.

Anything that does not fit is a `NotPeriodicError`, and the whole model is run.
"""

from __future__ import annotations

from itertools import pairwise

from profiler.bench.load import Load
from profiler.bench.repetition import depths
from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.likeness import Likeness, containers, period
from profiler.bench.repetition.log import OpLog
from profiler.bench.repetition.pattern import find, insertions
from profiler.bench.repetition.stream import Labels, Reader, Stream
from profiler.bench.repetition.writing import Writer
from profiler.bench.simulated import simulate
from profiler.bench.tracker import StorageTracker
from profiler.hardware.devices import Device
from profiler.resolve import Cell
from profiler.subject.subject import Subject, build
from profiler.trace import Trace

#: Layers of the shallow models together, at most this share of the model's: what is over is lost
#: where the proof fails.
SHARE = 0.5

#: Layers of the shallow models where all layers are alike: the first and the last may have a part
#: of their own in the step, and then one and two of those between.
_FEWEST = (2, 3, 4)


def simulate_by_repetition(
    cell: Cell, subject: Subject, device: Device | None, load: Load | None, *, share: float = SHARE
) -> Trace:
    """The trace that `profiler.bench.simulated.simulate` gives of this subject, for less.

    Args:
        share: of the model's layers, how many the shallow models may have together.

    Raises:
        NotPeriodicError: it cannot be proven, or would cost more.
    """
    config = subject.model.config
    count = depths.layer_count(config)
    if sum(_FEWEST) > share * count:
        raise NotPeriodicError(f"{count} layers are too few to gain from it")
    likeness = Likeness()
    classes = likeness.classes(subject.model, count)
    step, edge = period(classes)
    least = _FEWEST[0] + edge
    tried = [least + step * number for number in range(3)]
    if sum(tried) > share * count or tried[-1] > count:
        raise NotPeriodicError(f"{count} layers are too few to gain from it")
    tried = [depth + (count - least) % step for depth in tried]
    lists = containers(subject.model, count)
    reader = Reader(Labels(lists))
    shallow = [
        _Shallow(cell, config, depth, device, likeness, reader, list(lists)) for depth in tried
    ]
    _check_layers(classes, [one.classes for one in shallow])
    likeness.check_outside()
    said = shallow[0].trace.approximations
    if any(one.trace.approximations != said for one in shallow):
        raise NotPeriodicError("what is said of the step differs with the depth")
    pattern = find([one.stream for one in shallow], step)
    times = (count - tried[0]) // step

    def write(tracker: StorageTracker) -> None:
        trace = tracker.trace
        if trace.approximations != said[: len(trace.approximations)]:
            raise NotPeriodicError("what is said of the model differs with the depth")
        for block in trace.blocks:
            if not block.category and block.phase == "load":
                block.category = "buffers"  # as `profiler.bench.categories` decides
        alive = reader.alive(trace, len(trace.events))
        writer = Writer(reader.vocabulary, trace, alive, tracker.rules.cache_bytes)
        writer.write(pattern, times)
        trace.approximations[:] = said
        trace.outside = _outside([one.trace.outside for one in shallow], times)

    try:
        return simulate(subject, cell.spec, device, load, write=write)
    except NotPeriodicError as error:
        error.spent = True
        raise


class _Shallow:
    """A model with a few of the layers: its classes of layers, its trace, its steps."""

    def __init__(
        self,
        cell: Cell,
        config: object,
        depth: int,
        device: Device | None,
        likeness: Likeness,
        reader: Reader,
        lists: list[str],
    ) -> None:
        small = depths.at_depth(cell, config, depth)
        load = None if device is None else Load.of(cell.spec, device)
        log = OpLog()
        try:
            subject = build(small, load=load)
            self.classes = likeness.classes(subject.model, depth)
            if list(containers(subject.model, depth)) != lists:
                raise NotPeriodicError(f"with {depth} layers other lists of modules are as long")
            self.trace = simulate(subject, cell.spec, device, load, log=log)
        except NotPeriodicError:
            raise
        except Exception as error:  # whatever it is, it is not the model that was asked for
            text = " ".join(str(error).split())[:200]
            raise NotPeriodicError(f"not with {depth} layers: {text}") from None
        for before, block in zip(log.categories, self.trace.blocks, strict=False):
            if before != block.category and (before or block.phase != "load"):
                raise NotPeriodicError("a step makes something else of what was there before")
        self.stream: Stream = reader.stream(self.trace, log)


def _check_layers(classes: list[int], shallow: list[list[int]]) -> None:
    """The model must be a shallow one with layers of its own put in at one place."""
    found = [insertions(one, other) for one, other in pairwise(shallow)]
    if any(len(one) != 1 for one in found):
        raise NotPeriodicError("a deeper model is no shallower one with more layers")
    place, length = found[0][0]
    more = shallow[1][place : place + length]
    times = (len(classes) - len(shallow[0])) // length
    for one, number in ((shallow[2], 2), (classes, times)):
        if one != shallow[0][:place] + more * number + shallow[0][place:]:
            raise NotPeriodicError("a deeper model is no shallower one with more layers")


def _outside(depths: list[dict[str, int]], times: int) -> dict[str, int]:
    """What is outside of the allocator, which grows evenly with the depth."""
    one, two, three = depths
    if not list(one) == list(two) == list(three):
        raise NotPeriodicError("what is outside of the allocator differs with the depth")
    for name in one:
        if three[name] - two[name] != two[name] - one[name]:
            raise NotPeriodicError("what is outside of the allocator does not grow evenly")
    return {name: one[name] + (two[name] - one[name]) * times for name in one}
