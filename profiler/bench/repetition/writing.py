"""The trace of a deep model, written by the pattern that shallow ones have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.pattern import Pattern, Rule
from profiler.bench.repetition.stream import (
    ALLOC,
    EMPTY,
    FREE,
    MARK,
    NUMEL,
    OP,
    READ,
    UNTRACKED,
    WRITE,
    Alive,
    Path,
    Vocabulary,
    list_kernels,
)
from profiler.trace import Block, Mark, Op, Trace


class Writer:
    """Goes on with a trace.

    Args:
        alive: what is alive at its end.
        cache: bytes of the device's last cache.
    """

    def __init__(self, vocabulary: Vocabulary, trace: Trace, alive: Alive, cache: int) -> None:
        self._contents = vocabulary.contents
        self._trace = trace
        self._alive = alive
        self._cache = cache
        self._paths: dict[tuple[Path, int], str] = {}
        self._touched: dict[int, int] = {}
        self._total = 0
        self._untracked = 0
        # Of the op that comes next; stretches may end within what it touches.
        self._reads: list[tuple[int, int]] = []
        self._writes: list[tuple[int, int]] = []
        self._numels: list[int] = []

    def write(self, pattern: Pattern, times: int) -> None:
        """Write the pattern with each stretch `times` times.

        Raises:
            NotPeriodicError: a rule leads to a block that is not there.
        """
        try:
            for tokens in self._in_order(pattern, times):
                self._tokens(*tokens)
        except (KeyError, IndexError):
            raise NotPeriodicError("a block that a step means is not there") from None

    def _in_order(self, pattern: Pattern, times: int) -> Iterator[tuple[list[Any], int]]:
        stretches = [[self._at(rule, times) for rule in rules] for rules in pattern.stretches]
        for rules, stretch in zip(pattern.fixed, stretches, strict=True):
            yield [self._at(rule, times) for rule in rules], 0
            for repetition in range(times):
                yield stretch, repetition

    def _at(self, rule: Rule, times: int) -> tuple[Any, ...]:
        """A rule at a depth: (content, loose, layer, its step, from the newest, rank, its step,
        numbers)."""
        label, step = None, 0
        if rule.label is not None:
            label, step = rule.label[0] + rule.label[1] * times, rule.label[2]
        rank = rule.rank[0] + rule.rank[1] * times
        numbers = tuple(number + factor * times for number, factor in rule.numbers)
        content = self._contents[rule.loose]
        return content, rule.loose, label, step, rule.newest, rank, rule.rank[2], numbers

    def _tokens(self, tokens: list[Any], repetition: int) -> None:
        trace, alive = self._trace, self._alive
        blocks, events, ops = trace.blocks, trace.events, trace.ops
        touched, total, cache = self._touched, self._total, self._cache
        reads, writes, numels = self._reads, self._writes, self._numels
        for content, loose, label, step, newest, rank, rise, numbers in tokens:
            word = content[0]
            if label is not None and step:
                label += step * repetition
            if word in (READ, WRITE, FREE):
                held = alive[content[1], label]
                place = rank + rise * repetition
                if place < 0:
                    raise IndexError
                if newest:
                    place = len(held) - 1 - place
                    if place < 0:
                        raise IndexError
                if word == READ:
                    reads.append((held[place], numbers[0]))
                elif word == WRITE:
                    writes.append((held[place], numbers[0]))
                else:
                    events.append(-(held.pop(place) + 1))
            elif word == ALLOC:
                _, op, path, dtype, phase, source, category, _ = content
                module = path[0] if label is None else self._path(path, label)
                key = (loose, label)
                if key in alive:
                    alive[key].append(len(blocks))
                else:
                    alive[key] = [len(blocks)]
                blocks.append(
                    Block(numbers[0], category, op, module, numbers[1:], dtype, phase, source)
                )
                events.append(len(blocks))
            elif word == OP:
                cached = 0
                for block, size in reads:
                    last = touched.get(block)
                    if last is not None and total - last + size <= cache:
                        cached += size
                for block, size in reads + writes:
                    total += size
                    touched[block] = total
                name, phase, path, number, dtype, again, waits, causal = content[1:9]
                turned, _, lists = content[9:]
                flops, nbytes, kernels, items, views, modules, *product = numbers
                if lists or items:
                    kernels += list_kernels(name, items, numels, lists)
                ops.append(
                    Op(
                        name,
                        phase,
                        path[0] if label is None else self._path(path, label),
                        number,
                        flops,
                        nbytes,
                        dtype,
                        again,
                        len(events),
                        cached,
                        tuple(product),
                        kernels,
                        items,
                        views,
                        modules,
                        waits,
                        causal,
                        turned,
                    )
                )
                if reads or writes or numels:
                    reads, writes, numels = [], [], []
            elif word == NUMEL:
                numels.append(numbers[0])
            elif word == UNTRACKED:
                self._untracked -= 1
                alive.setdefault((loose, label), []).append(self._untracked)
            elif word == EMPTY:
                events.append(0)
            elif word == MARK:
                trace.marks.append(Mark(len(events), content[1], content[2]))
        self._total = total
        self._reads, self._writes, self._numels = reads, writes, numels

    def _path(self, path: Path, label: int) -> str:
        known = self._paths.get((path, label))
        if known is None:
            known = self._paths[path, label] = f"{path[0]}{label}{path[1]}"
        return known
