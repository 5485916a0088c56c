"""The steps of a whole run: each distinct one simulated, or derived from others and proven so.

All steps are taken by one model and one optimizer, in one session, so that each finds what the one
before it left. The run's first steps are simulated as they stand. After that, steps differ by
their batch's shape, and by what the step before left them to free: two steps whose ops, modules,
lines and events are the same differ only in sizes, and sizes are functions of the length
(`profiler.analysis.size_functions`). Lengths are simulated until every size at every length that
is needed follows from such a function; where events change (kernels have thresholds, masks are
padded to multiples), each side has functions of its own. A length that no function reaches is
simulated itself.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise, product

import torch

from profiler.analysis.history import StepHistory, StepKind, StepTrace
from profiler.analysis.size_functions import BlockFunction, Function, Undecided, find
from profiler.bench.load import Load
from profiler.bench.simulated import Feed, simulate
from profiler.errors import UnsupportedError
from profiler.hardware.devices import Device
from profiler.lengths import Batch, LengthHistory, Shape
from profiler.spec import RunSpec
from profiler.subject.subject import Subject
from profiler.trace import Block, Mark, Op, Trace

#: Steps that are simulated as they stand: the first finds no optimizer state, the second finds
#: blocks in the order in which the first made them.
_FIRST = 3

#: What steps may leave behind, in how many ways.
_STATES = 16

#: Lengths that are simulated in any case before functions are sought.
_LEAST = 6


@dataclass(frozen=True)
class History:
    """What came of it.

    Attributes:
        steps: the run, for `profiler.analysis.history`.
        trace: of the session; its ops and blocks are those of the simulated steps.
        before: what comes before the first step.
        ops: of each of `steps.steps`, alike ones together: an op and how often it runs.
        whole: which of these were simulated; their ops are each alone and in order.
        simulated: how many shapes were simulated.
        shapes: how many the run has.
    """

    steps: StepHistory
    trace: Trace
    before: Trace
    ops: list[list[tuple[Op, int]]]
    whole: list[bool]
    simulated: int
    shapes: int


def simulate_history(
    subject: Subject,
    spec: RunSpec,
    device: Device | None,
    load: Load | None,
    history: LengthHistory,
) -> History:
    """Simulate what is needed of a run to know all of its steps.

    Args: as of `profiler.bench.simulated.simulate`.

    Raises:
        UnsupportedError: steps that depend on more than their batch's shape.
    """
    session = _Session(subject, spec, history)
    trace = simulate(subject, spec, device, load, drive=session.drive)
    return session.result(trace)


def batch_of(
    subject: Subject, lengths: Sequence[int], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Token ids, mask and labels of shape (len(lengths), longest), int64, padded on the right; and
    what the method asks for."""
    shape = (len(lengths), max(lengths))
    ids = torch.randint(subject.vocab_size, shape, generator=generator)
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).to(torch.int64)
    labels = ids.masked_fill(mask == 0, -100)
    more = subject.method.inputs(subject.config, shape[0])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, **more}


#: Multiples (step, offset) that lengths were told apart by.
_Divisions = frozenset[tuple[int, int]]

#: Samples of a batch, whether it is padded, and the state that its step finds.
_ClassKey = tuple[int, bool, int]


@dataclass(frozen=True)
class _Form:
    """A simulated step: its kind, where it stands in the trace, and what it must have in common
    with a step of another length."""

    kind: StepKind
    blocks: range
    ops: range
    found: int  # a number for what was alive before: equal for equal ops and modules
    leaves: int
    content: tuple[object, ...]

    @cached_property
    def key(self) -> int:
        return hash(self.content)

    def like(self, other: _Form) -> bool:
        return self is other or (self.key == other.key and self.content == other.content)


class _Session:
    """Takes the steps that are needed, and knows for each step of the run which one it is like."""

    def __init__(self, subject: Subject, spec: RunSpec, history: LengthHistory) -> None:
        self.subject = subject
        self.history = history
        self.generator = torch.Generator().manual_seed(spec.seed)
        self.first: list[_Form] = []
        self.classes: dict[_ClassKey, _Class] = {}
        self.states: dict[tuple[tuple[str, str], ...], int] = {}
        self.alive: dict[int, None] = {}

    def drive(self, feed: Feed) -> None:
        """Take the run's first steps, then those of which one must be known."""
        self.trace = feed.tracker.trace
        self.begin = len(self.trace.events)
        self._follow(0)
        for batch in self.history.batches[:_FIRST]:
            self.first.append(self._step(feed, batch))
        if len(self.first) == len(self.history.batches):
            return
        for batch, form in zip(self.history.batches, self.first, strict=False):
            self._class(batch.shape, form.found).put(batch.shape.length, form)
        state = self.first[-1].leaves
        leads: dict[int, Batch] = {}  # a batch whose step leaves what another must find
        while (wanted := self._wanted()) is not None:
            batch, found = wanted
            steps = [batch] if found == state else [leads[found], batch]
            for one in steps:
                form = self._step(feed, one)
                state = form.leaves
                leads.setdefault(state, one)
                self._class(one.shape, form.found).put(one.shape.length, form)
            if form.found != found or len(self.states) > _STATES:
                raise _unsteady()

    def result(self, trace: Trace) -> History:
        """The run, once the trace's categories are decided."""
        self._check_categories(trace)
        steps: list[StepTrace] = []
        ops: list[list[tuple[Op, int]]] = []
        whole = [True for _ in self.first]
        order: list[int] = []
        for form in self.first:
            order.append(len(steps))
            steps.append(_simulated(trace, form))
            ops.append([(op, 1) for op in trace.ops[form.ops.start : form.ops.stop]])
        places: dict[tuple[Shape, int], int] = {}
        for batch, one, found in self._walk():
            place = places.get((batch.shape, found))
            if place is None:
                place = places[batch.shape, found] = len(steps)
                step, run = one.step(batch.shape.length)
                steps.append(step)
                ops.append(run)
                whole.append(batch.shape.length in one.forms)
            order.append(place)
        blocks = max(trace.events[: self.begin], default=0)
        before = Trace(
            cuda=trace.cuda,
            source=trace.source,
            blocks=trace.blocks[:blocks],
            events=trace.events[: self.begin],
            marks=[mark for mark in trace.marks if mark.step == 0],
        )
        before.marks.append(Mark(self.begin, "end", 0))
        simulated = {batch.shape for batch in self.history.batches[: len(self.first)]}
        for (size, padded, _), one in self.classes.items():
            simulated |= {Shape(size, length, padded) for length in one.forms}
        return History(
            steps=StepHistory(
                cuda=trace.cuda,
                blocks=before.blocks,
                events=before.events,
                steps=steps,
                order=order,
                empty_cache_every=self.history.empty_cache_every,
            ),
            trace=trace,
            before=before,
            ops=ops,
            whole=whole,
            simulated=len(simulated),
            shapes=len({batch.shape for batch in self.history.batches}),
        )

    def _wanted(self) -> tuple[Batch, int] | None:
        """A step to take next: its batch, and the state that it must find."""
        needed: dict[_ClassKey, dict[int, Batch]] = {}
        for batch, _, found in self._walk():
            shape = batch.shape
            examples = needed.setdefault((shape.size, shape.padded, found), {})
            examples.setdefault(shape.length, batch)
        for key, examples in needed.items():
            length = self.classes[key].missing(sorted(examples))
            if length is not None:
                return examples[length], key[2]
        return None

    def _walk(self) -> Iterator[tuple[Batch, _Class, int]]:
        """Each step after the first ones, its class and the state it finds; as far as steps are not
        known, as if they left what they found."""
        state = self.first[-1].leaves
        for batch in self.history.batches[len(self.first) :]:
            one = self._class(batch.shape, state)
            yield batch, one, state
            form = one.form(batch.shape.length)
            state = state if form is None else form.leaves

    def _class(self, shape: Shape, found: int) -> _Class:
        key = (shape.size, shape.padded, found)
        one = self.classes.get(key)
        if one is None:
            one = self.classes[key] = _Class(self.trace)
        return one

    def _check_categories(self, trace: Trace) -> None:
        """What a block is for is known only now, and follows from its step as the rest does."""

        def categories(form: _Form) -> list[str]:
            return [block.category for block in trace.blocks[form.blocks.start : form.blocks.stop]]

        for one in self.classes.values():
            models = {id(derived.form): derived.form for derived in one.derived.values()}
            for form in models.values():
                for other in one.forms.values():
                    if other.like(form) and categories(other) != categories(form):
                        raise _unsteady()

    def _follow(self, start: int) -> None:
        """Keep the list of blocks alive, in the order in which they were allocated."""
        for event in self.trace.events[start:]:
            if event > 0:
                self.alive[event - 1] = None
            elif event < 0:
                del self.alive[-event - 1]

    def _step(self, feed: Feed, batch: Batch) -> _Form:
        trace = self.trace
        start, block, op, mark = (
            len(items) for items in (trace.events, trace.blocks, trace.ops, trace.marks)
        )
        before = list(self.alive)
        feed(partial(batch_of, self.subject, batch.lengths, self.generator))
        self._follow(start)
        numbers = {number: place for place, number in enumerate(before)}
        base = len(before)
        events = array("q")
        for event in trace.events[start:]:
            number = abs(event) - 1
            place = number - block + base if number >= block else numbers[number]
            events.append(place + 1 if event > 0 else -place - 1)
        alive = list(self.alive)
        kind = StepKind(
            before=base,
            events=events,
            kept=tuple(numbers[number] for number in alive if number < block),
            left=tuple(number - block for number in alive if number >= block),
            marks=tuple((one.event - start, one.phase) for one in trace.marks[mark:]),
        )
        blocks, ops = range(block, len(trace.blocks)), range(op, len(trace.ops))
        content = (
            tuple(events),
            kind.kept,
            kind.left,
            kind.marks,
            tuple(
                (one.op, one.module, one.dtype, one.phase, one.source, len(one.shape))
                for one in trace.blocks[block:]
            ),
            tuple(
                (one.name, one.phase, one.module, one.dtype, one.recompute, one.event - start)
                for one in trace.ops[op:]
            ),
        )
        return _Form(
            kind=kind,
            blocks=blocks,
            ops=ops,
            found=self._state(before),
            leaves=self._state(alive),
            content=content,
        )

    def _state(self, alive: Sequence[int]) -> int:
        blocks = self.trace.blocks
        content = tuple((blocks[number].op, blocks[number].module) for number in alive)
        return self.states.setdefault(content, len(self.states))


def _unsteady() -> UnsupportedError:
    return UnsupportedError(
        "--lengths does not know this step: what outlives it changes from step to step, and not "
        "with its batch's length alone"
    )


def _simulated(trace: Trace, form: _Form) -> StepTrace:
    blocks = trace.blocks[form.blocks.start : form.blocks.stop]
    return StepTrace(form.kind, [block.nbytes for block in blocks], lambda: blocks)


@dataclass(frozen=True)
class _Derived:
    """What a step is at any length of a stretch: functions, and which of them each block and op
    takes."""

    form: _Form
    functions: list[Function]
    sizes: list[int]
    shapes: list[tuple[int, ...]]
    ops: list[tuple[int, int, int, int]]  # (op, count, FLOPs' function, bytes' function)


class _Class:
    """The lengths of one size of batch, padded or not: simulated ones and those that follow.

    Attributes:
        forms: the simulated steps by length.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.forms: dict[int, _Form] = {}
        self.derived: dict[int, _Derived] = {}
        self.offsets: tuple[int, ...] = (0,)
        self._settled: list[int] = []
        self._dims: dict[int, Counter[int]] = {}

    def put(self, length: int, form: _Form) -> None:
        """A step was simulated."""
        self.forms[length] = form
        self._settled = []

    def form(self, length: int) -> _Form | None:
        """The simulated step that a length's is like, None if it is not known."""
        form = self.forms.get(length)
        if form is None and length in self.derived:
            form = self.derived[length].form
        return form

    def missing(self, lengths: list[int]) -> int | None:
        """A length to simulate next, so that all of these are known; None once they are."""
        if lengths == self._settled:
            return None
        self.derived.clear()
        self.offsets = self._find_offsets()
        missing = self._missing(lengths, frozenset())
        if missing is None:
            self._settled = lengths
        return missing

    def step(self, length: int) -> tuple[StepTrace, list[tuple[Op, int]]]:
        """The step of a length, and its ops."""
        form = self.forms.get(length)
        trace = self.trace
        if form is not None:
            ops = [(op, 1) for op in trace.ops[form.ops.start : form.ops.stop]]
            return _simulated(trace, form), ops
        derived = self.derived[length]
        form = derived.form
        values = [function(length) for function in derived.functions]
        sizes = [values[number] for number in derived.sizes]

        def describe() -> list[Block]:
            blocks = trace.blocks[form.blocks.start : form.blocks.stop]
            return [
                replace(block, nbytes=size, shape=tuple([values[number] for number in shape]))
                for block, size, shape in zip(blocks, sizes, derived.shapes, strict=True)
            ]

        ops = [
            (replace(trace.ops[op], flops=values[flops], nbytes=values[nbytes]), count)
            for op, count, flops, nbytes in derived.ops
        ]
        return StepTrace(form.kind, sizes, describe), ops

    def _find_offsets(self) -> tuple[int, ...]:
        """What is added to a length in each step, such as virtual tokens, and 0.

        That a tensor has a position more or less than the length, as labels do that are shifted,
        does not count: no kernel rounds it.
        """
        if len(self.forms) < 3:
            return (0,)
        for length, form in self.forms.items():
            if length not in self._dims:
                blocks = self.trace.blocks[form.blocks.start : form.blocks.stop]
                self._dims[length] = Counter(
                    size - length for block in blocks for size in block.shape
                )
        often = {
            offset: sum(dims[offset] for dims in self._dims.values())
            for offset in set.intersection(*(set(dims) for dims in self._dims.values()))
        }
        offsets = [0]
        for offset in sorted(often, key=lambda one: (-often[one], abs(one), one)):
            if all(abs(offset - other) > 1 for other in offsets):
                offsets.append(offset)
        return (0, *sorted(offsets[1:]))

    def _missing(self, lengths: list[int], divided: _Divisions) -> int | None:
        unknown = [length for length in lengths if length not in self.forms]
        if not unknown:
            return None
        missing = _first_missing(lengths, self.forms, self.offsets)
        if missing is not None:
            return missing
        known = [length for length in lengths if length in self.forms]
        first = self.forms[known[0]]
        if all(self.forms[length].like(first) for length in known):
            return self._derive(lengths, known, unknown, divided)
        for division in product((16, 8, 64, 128, 32, 4, 2), self.offsets):
            step, offset = division
            inside = [length for length in known if (length + offset) % step == 0]
            outside = [length for length in known if (length + offset) % step]
            if division in divided or not inside or not outside:
                continue
            if not any(
                self.forms[one].like(self.forms[other]) for one in inside for other in outside
            ):
                return self._parts(
                    [length for length in lengths if (length + offset) % step == 0],
                    [length for length in lengths if (length + offset) % step],
                    divided | {division},
                )
        for one, other in pairwise(known):
            if not self.forms[one].like(self.forms[other]):
                between = [length for length in unknown if one < length < other]
                if between:
                    return between[len(between) // 2]
                return self._parts(
                    [length for length in lengths if length < other],
                    [length for length in lengths if length >= other],
                    divided,
                )
        raise AssertionError("two neighbours differ where not all are alike")

    def _parts(self, some: list[int], others: list[int], divided: _Divisions) -> int | None:
        missing = self._missing(some, divided) if some else None
        if missing is not None or not others:
            return missing
        return self._missing(others, divided)

    def _derive(
        self, lengths: list[int], known: list[int], unknown: list[int], divided: _Divisions
    ) -> int | None:
        """Find the functions of one stretch, or a length that is needed for them."""
        forms = [(one, self.forms[one]) for one in known]
        found = _functions(self.trace, forms, unknown, self.offsets)
        if isinstance(found, Undecided):
            return found.length
        if found is not None:
            self.derived.update(dict.fromkeys(unknown, found))
            return None
        if len(known) < 2 * _LEAST:  # a size may bend: see where
            return unknown[len(unknown) // 2]
        half = len(lengths) // 2
        return self._parts(lengths[:half], lengths[half:], divided)


def _functions(
    trace: Trace, forms: list[tuple[int, _Form]], wanted: list[int], offsets: tuple[int, ...]
) -> _Derived | Undecided | None:
    """The functions of alike steps of several lengths."""
    lengths = [length for length, _ in forms]
    numbers: dict[tuple[int, ...], int] = {}

    def number(values: tuple[int, ...]) -> int:
        return numbers.setdefault(values, len(numbers))

    blocks = [trace.blocks[form.blocks.start : form.blocks.stop] for _, form in forms]
    sizes = [number(tuple([one.nbytes for one in same])) for same in zip(*blocks, strict=True)]
    shapes = [
        tuple([number(dims) for dims in zip(*[one.shape for one in same], strict=True)])
        for same in zip(*blocks, strict=True)
    ]
    runs = [trace.ops[form.ops.start : form.ops.stop] for _, form in forms]
    alike: dict[tuple[object, ...], tuple[int, int, int, int]] = {}
    start = forms[0][1].ops.start
    for place, same in enumerate(zip(*runs, strict=True)):
        op = same[0]
        flops = number(tuple([one.flops for one in same]))
        nbytes = number(tuple([one.nbytes for one in same]))
        key = (op.name, op.phase, op.dtype, op.recompute, flops, nbytes)
        before = alike.get(key, (start + place, 0, flops, nbytes))
        alike[key] = (before[0], before[1] + 1, flops, nbytes)
    functions: list[Function] = []
    for values in numbers:
        buffers = [one for one in functions if isinstance(one, BlockFunction)]
        function = find(lengths, values, wanted, offsets, list(dict.fromkeys(buffers)))
        if function is None or isinstance(function, Undecided):
            return function
        functions.append(function)
    return _Derived(forms[0][1], functions, sizes, shapes, list(alike.values()))


def _first_missing(
    lengths: list[int], known: Container[int], offsets: tuple[int, ...]
) -> int | None:
    """A length to look at before functions are sought: both ends, of each power of two one that it
    divides, all over the range, and `_LEAST` in all."""
    by_power: dict[tuple[int, int], list[int]] = {}
    for length in lengths:
        for offset in offsets:
            power = min((length + offset) & -(length + offset), 64)
            by_power.setdefault((offset, power), []).append(length)
    for end in (lengths[0], lengths[-1]):
        if end not in known:
            return end
    for place, key in enumerate(sorted(by_power), 1):
        group = by_power[key]
        if not any(length in known for length in group):
            return group[len(group) * place // (len(by_power) + 1)]
    inside = [length for length in lengths if length in known]
    if len(inside) >= min(_LEAST, len(lengths)):
        return None
    unknown = (length for length in lengths if length not in known)
    return max(unknown, key=lambda length: min(abs(length - other) for other in inside))
