"""A trace as one sequence of tokens, in which layers can be told apart and compared.

A token is an allocation, a free, an op, what an op touches, the start of a phase, or that the
allocator's cache is emptied. What it says is put so that it is the same for each layer and each
depth, if the layers do the same:

- a path names its layer by a number beside it (`Labels`);
- a block is not named by its number but by what made it, its layer, and its rank among those of
  the same kind that are alive: from the oldest or from the newest on;
- sizes and FLOPs stand beside the rest: those of an op on all layers' tensors grow with depth.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from profiler.bench.op_work import JOINING, foreach_kernels, joining_kernels
from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.log import OpLog, Touches
from profiler.trace import Op, Trace

#: Kinds of tokens, the first item of what they say.
ALLOC, FREE, READ, WRITE, NUMEL, OP, MARK, UNTRACKED, EMPTY = range(9)

#: A path without its layer: what stands before the layer's number and after it.
Path = tuple[str, str]


class Labels:
    """Tells layers apart by paths.

    Args:
        containers: paths of the lists of layers.
    """

    def __init__(self, containers: Iterable[str]) -> None:
        names = "|".join(re.escape(name) for name in containers)
        self._pattern = re.compile(rf"((?:{names})\.)(\d+)(?=\.|$)")
        self._known: dict[str, tuple[Path, int | None]] = {}

    def of(self, path: str) -> tuple[Path, int | None]:
        """A path without its layer, and the layer; None if it is in none."""
        known = self._known.get(path)
        if known is None:
            match = self._pattern.match(path)
            known = ((path, ""), None)
            if match is not None:
                known = ((match[1], path[match.end() :]), int(match[2]))
            self._known[path] = known
        return known


class Vocabulary:
    """Numbers for what tokens say.

    Attributes:
        contents: what each number says.
    """

    def __init__(self) -> None:
        self.contents: list[tuple[Any, ...]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def number(self, content: tuple[Any, ...]) -> int:
        known = self._numbers.get(content)
        if known is None:
            known = self._numbers[content] = len(self.contents)
            self.contents.append(content)
        return known


@dataclass
class Stream:
    """The tokens of one depth, a list for each property.

    Attributes:
        loose: what a token says, without numbers that may depend on depth; `full` with them.
        numbers: these numbers.
        labels: the layer, None outside of layers.
        oldest, newest: rank of the block that is meant, from either end.
        starts: where the phases begin.
    """

    loose: list[int] = field(default_factory=list)
    full: list[int] = field(default_factory=list)
    numbers: list[tuple[int, ...]] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    oldest: list[int] = field(default_factory=list)
    newest: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)


#: Blocks of one kind in one layer, the oldest first.
Alive = dict[tuple[int, int | None], list[int]]


class Reader:
    """Reads traces into streams of one vocabulary."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.vocabulary = Vocabulary()

    def kind(self, trace: Trace, block: int) -> tuple[int, int | None]:
        """The number of a block's kind, and its layer."""
        one = trace.blocks[block]
        path, label = self.labels.of(one.module)
        content = (ALLOC, one.op, path, one.dtype, one.phase, one.source, one.category)
        return self.vocabulary.number((*content, len(one.shape))), label

    def alive(self, trace: Trace, events: int) -> Alive:
        """What is alive after the first `events` events."""
        held: dict[int, None] = {}
        for event in trace.events[:events]:
            if event > 0:
                held[event - 1] = None
            elif event < 0:
                del held[-event - 1]
        alive: Alive = {}
        for block in held:
            alive.setdefault(self.kind(trace, block), []).append(block)
        return alive

    def stream(self, trace: Trace, log: OpLog, start: int) -> Stream:
        """A trace from an event on that is before its ops, its last mark left out."""
        return _Reading(self, trace, log, start).run()

    def op(self, op: Op, lists: int) -> tuple[tuple[Any, ...], int | None]:
        """What an op says, without numbers, and its layer."""
        path, label = self.labels.of(op.module)
        content = (
            OP,
            op.name,
            op.phase,
            path,
            op.step,
            op.dtype,
            op.recompute,
            op.waits,
            op.causal,
            op.transposed,
            len(op.product),
            lists,
        )
        return content, label


class _Reading:
    def __init__(self, reader: Reader, trace: Trace, log: OpLog, start: int) -> None:
        self.reader = reader
        self.trace = trace
        self.log = log
        self.out = Stream()
        self.index = start
        self.marks = deque([mark for mark in trace.marks if mark.event >= self.index][:-1])
        self.alive = reader.alive(trace, self.index)
        self.kinds: dict[int, tuple[int, int | None]] = {
            block: kind for kind, blocks in self.alive.items() for block in blocks
        }

    def run(self) -> Stream:
        for op, touches in zip(self.trace.ops, self.log.touches, strict=True):
            self._events(op.event)
            self._op(op, touches)
        self._events(len(self.trace.events))
        return self.out

    def _events(self, end: int) -> None:
        """The events up to one, and the marks before and after them."""
        while True:
            while self.marks and self.marks[0].event == self.index:
                mark = self.marks.popleft()
                self.out.starts.append(len(self.out.loose))
                self._put((MARK, mark.phase, mark.step))
            if self.index == end:
                return
            self._event(self.trace.events[self.index])
            self.index += 1

    def _put(
        self,
        content: tuple[Any, ...],
        numbers: tuple[int, ...] = (),
        label: int | None = None,
        oldest: int = 0,
        newest: int = 0,
    ) -> int:
        number, out = self.reader.vocabulary.number, self.out
        loose = number(content)
        out.loose.append(loose)
        out.full.append(number((loose, *numbers)) if numbers else loose)
        out.numbers.append(numbers)
        out.labels.append(label)
        out.oldest.append(oldest)
        out.newest.append(newest)
        return loose

    def _event(self, event: int) -> None:
        if event > 0:
            block = event - 1
            one = self.trace.blocks[block]
            kind = self.kinds[block] = self.reader.kind(self.trace, block)
            content = self.reader.vocabulary.contents[kind[0]]
            self._put(content, (one.nbytes, *one.shape), kind[1])
            self.alive.setdefault(kind, []).append(block)
        elif event < 0:
            block = -event - 1
            kind = self.kinds.pop(block)
            held = self.alive[kind]
            rank = held.index(block)
            self._put((FREE, kind[0]), (), kind[1], rank, len(held) - 1 - rank)
            del held[rank]
        else:
            self._put((EMPTY,))

    def _untracked(self, op: Op) -> tuple[int, int | None]:
        """The kind of what is no block of the allocator: the op that it is seen at first."""
        path, label = self.reader.labels.of(op.module)
        return self._put((UNTRACKED, op.name, path), label=label), label

    def _op(self, op: Op, touches: Touches) -> None:
        for numel in touches.numels:
            self._put((NUMEL,), (numel,))
        for word, touched in ((READ, touches.reads), (WRITE, touches.writes)):
            times: Counter[int] = Counter()  # two lists that are one must not run into each other
            for block, size in touched:
                if block is None:
                    raise NotPeriodicError(f"{op.name} takes what nothing was seen to make")
                kind = self.kinds.get(block)
                if kind is None:
                    if block >= 0:
                        raise NotPeriodicError(f"{op.name} takes what was freed")
                    kind = self.kinds[block] = self._untracked(op)
                    self.alive.setdefault(kind, []).append(block)
                held = self.alive[kind]
                rank = held.index(block)
                newest = len(held) - 1 - rank
                self._put((word, kind[0], times[block]), (size,), kind[1], rank, newest)
                times[block] += 1
        content, label = self.reader.op(op, touches.lists)
        kernels = op.kernels - list_kernels(op.name, op.items, touches.numels, touches.lists)
        numbers = (op.flops, op.nbytes, kernels, op.items, op.views, op.modules, *op.product)
        self._put(content, numbers, label)


def list_kernels(name: str, items: int, numels: Iterable[int], lists: int) -> int:
    """Launches of an op that are no proportion of its tensors' number, as lists are cut."""
    if lists:
        return foreach_kernels(numels, lists)
    return joining_kernels(items) if name.rpartition(".")[2] in JOINING else 0
