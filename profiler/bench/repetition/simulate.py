"""A simulation of a deep model by three shallow ones, if it is proven to be the same.

1. The layers are compared by all that their modules hold (`likeness`). The model must be a
   shallower one with more layers of the same kinds in one place.
2. Three shallow models run (`stream`), and a pattern is proven on them (`pattern`).
3. The trace is written (`writing`): each allocation, free and op, so that it is the one that the
   whole model would have given, and everything after it is the same.

Where what the method puts into a layer can be told from that layer (`independence`), the layers of
the model as it is loaded are compared, and all is written: the method is never put on the whole
model. Else it is, the layers are compared with what it made of them, and the steps alone are
written, after what was built.

Anything that does not fit is a `NotPeriodicError`, and the whole model is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from profiler.bench.loaded import Loaded
from profiler.bench.repetition import depths
from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.independence import layers_are_independent
from profiler.bench.repetition.likeness import Likeness, containers, period
from profiler.bench.repetition.log import OpLog
from profiler.bench.repetition.pattern import Pattern, find, insertions
from profiler.bench.repetition.saved import Saved, check_saved, saved_at
from profiler.bench.repetition.stream import Labels, Reader
from profiler.bench.repetition.writing import Writer
from profiler.bench.simulated import simulate
from profiler.bench.tracker import StorageTracker
from profiler.record import Params
from profiler.subject.adapter_file import file_bytes, saved_tensors
from profiler.trace import Mark, Trace

#: Layers of the shallow models together, at most this share of the model's: what is over is lost
#: where the proof fails.
SHARE = 0.5

#: Layers of the shallow models where all layers are alike: the first and the last may have a part
#: of their own in the step, and then one and two of those between.
_FEWEST = (2, 3, 4)


def simulate_by_repetition(whole: Loaded, *, share: float = SHARE) -> tuple[Trace, Params]:
    """What `Loaded.trace` gives of the whole model, and its subject's counts, for less.

    Args:
        share: of the model's layers, how many the shallow models may have together.

    Raises:
        NotPeriodicError: it cannot be proven, or would cost more.
    """
    config = whole.base.model.config
    count = depths.layer_count(config)
    if sum(_FEWEST) > share * count:
        raise NotPeriodicError(f"{count} layers are too few to gain from it")
    independent = layers_are_independent(whole.cell)
    model = whole.base.model if independent else whole.subject.model
    likeness = Likeness()
    classes = likeness.classes(model, count)
    step, edge = period(classes)
    least = _FEWEST[0] + edge
    tried = [least + step * number for number in range(3)]
    if sum(tried) > share * count or tried[-1] > count:
        raise NotPeriodicError(f"{count} layers are too few to gain from it")
    tried = [depth + (count - least) % step for depth in tried]
    shallow = [_Shallow(whole, config, depth, likeness, independent) for depth in tried]
    place = _place(classes, [one.classes for one in shallow])
    likeness.check_outside()
    lists = shallow[0].lists if independent else list(containers(model, count))
    if any(one.lists != lists for one in shallow):
        raise NotPeriodicError("with another depth other lists of modules are as long")
    reader = Reader(Labels(lists))
    for one in shallow:
        one.run(reader)
    said = shallow[0].trace.approximations
    if any(one.trace.approximations != said for one in shallow):
        raise NotPeriodicError("what is said of the step differs with the depth")
    pattern = find([one.stream for one in shallow], step)
    times = (count - tried[0]) // step
    if independent:
        params = _params(whole, shallow, reader.labels, range(place, place + step), times)
        return _written(whole, shallow, reader, pattern, times), params
    return _continued(whole, shallow, reader, pattern, times), whole.subject.params


class _Shallow:
    """A model with a few of the layers.

    Attributes:
        classes: of its layers.
        lists: paths of the lists of them.
        saved: the files of its adapter.
        trace, stream: once it has run.
    """

    def __init__(
        self, whole: Loaded, config: object, depth: int, likeness: Likeness, independent: bool
    ) -> None:
        self.depth = depth
        self.independent = independent
        self.log = OpLog()
        try:
            cell = depths.at_depth(whole.cell, config, depth, resolved=independent)
            self.loaded = Loaded(cell, whole.device)
            if independent:
                self.classes = likeness.classes(self.loaded.base.model, depth)
            self.subject = self.loaded.subject
            if not independent:
                self.classes = likeness.classes(self.subject.model, depth)
            self.lists = list(containers(self.subject.model, depth))
            self.saved: list[Saved] = saved_tensors(self.subject.model) if independent else []
        except NotPeriodicError:
            raise
        except Exception as error:
            raise self._fails(error) from None

    def run(self, reader: Reader) -> None:
        """Simulate it, and read all of the trace, or the steps alone."""
        try:
            self.trace = self.loaded.trace(self.log)
        except Exception as error:
            raise self._fails(error) from None
        start = len(self.loaded.events) if self.independent else self.log.events
        self.stream = reader.stream(self.trace, self.log, start)

    def _fails(self, error: Exception) -> NotPeriodicError:
        """Whatever went wrong, it is not the model that was asked for."""
        text = " ".join(str(error).split())[:200]
        return NotPeriodicError(f"not with {self.depth} layers: {text}")


def _place(classes: list[int], shallow: list[list[int]]) -> int:
    """The first of the layers that the model has more of: it must be a shallow one with layers of
    its own put in at one place."""
    found = [insertions(one, other) for one, other in pairwise(shallow)]
    if any(len(one) != 1 for one in found):
        raise NotPeriodicError("a deeper model is no shallower one with more layers")
    place, length = found[0][0]
    more = shallow[1][place : place + length]
    times = (len(classes) - len(shallow[0])) // length
    for one, number in ((shallow[2], 2), (classes, times)):
        if one != shallow[0][:place] + more * number + shallow[0][place:]:
            raise NotPeriodicError("a deeper model is no shallower one with more layers")
    return place


def _written(
    whole: Loaded, shallow: Sequence[_Shallow], reader: Reader, pattern: Pattern, times: int
) -> Trace:
    """All of the trace."""
    first = shallow[0]
    trace = Trace(cuda=first.trace.cuda, source=first.trace.source)
    for block in whole.blocks:
        block.category = "temporaries"  # as `Load.hand_over` says of what is freed again
    trace.blocks.extend(whole.blocks)
    trace.events.extend(whole.events)
    begun = len(first.loaded.events)
    trace.marks.extend(mark for mark in first.trace.marks if mark.event < begun)
    cache = 0 if whole.device is None else whole.device.l2_bytes
    Writer(reader.vocabulary, trace, {}, cache).write(pattern, times)
    end = first.trace.marks[-1]
    trace.marks.append(Mark(len(trace.events), end.phase, end.step))
    trace.approximations.extend(first.trace.approximations)
    trace.outside = _outside(shallow, times)
    return trace


def _continued(
    whole: Loaded, shallow: Sequence[_Shallow], reader: Reader, pattern: Pattern, times: int
) -> Trace:
    """The trace of what was built, with the steps written."""
    said = shallow[0].trace.approximations
    for one in shallow:
        for before, block in zip(one.log.categories, one.trace.blocks, strict=False):
            if before != block.category and (before or block.phase != "load"):
                raise NotPeriodicError("a step makes something else of what was there before")

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
        trace.outside = _outside(shallow, times)

    try:
        return simulate(whole.subject, whole.cell.spec, whole.device, whole.load, write=write)
    except NotPeriodicError as error:
        error.spent = True
        raise


def _params(
    whole: Loaded, shallow: Sequence[_Shallow], labels: Labels, more: range, times: int
) -> Params:
    """The subject's counts; `more` are the layers of the second depth that the first has not."""
    added = [one.subject.params.total - one.loaded.base.parameters for one in shallow]
    total = whole.base.parameters + _grown(added, times)
    trainable = _grown([one.subject.params.trainable for one in shallow], times)
    check_saved([one.saved for one in shallow], labels, more)
    files = [saved_at(one, labels, more, times) for one in shallow[1].saved]
    return Params(
        total=total,
        trainable=trainable,
        trainable_fraction=trainable / total,
        adapter_file_bytes=sum(map(file_bytes, files)),
    )


def _outside(shallow: Sequence[_Shallow], times: int) -> dict[str, int]:
    """What is outside of the allocator."""
    one, two, three = (of.trace.outside for of in shallow)
    if not list(one) == list(two) == list(three):
        raise NotPeriodicError("what is outside of the allocator differs with the depth")
    return {name: _grown([one[name], two[name], three[name]], times) for name in one}


def _grown(values: Sequence[int], times: int) -> int:
    """A number that grows evenly with the depth, where it has grown so many times."""
    one, two, three = values
    if three - two != two - one:
        raise NotPeriodicError("a count does not grow evenly with the depth")
    return one + (two - one) * times
