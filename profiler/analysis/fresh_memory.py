"""How much memory a step is given anew by the system: each page of it is a page fault.

As glibc's malloc does once a process has run a while (mallopt(3), M_MMAP_THRESHOLD): a block of
32 MiB or more is mapped when it is asked for and unmapped when it is freed. Smaller ones come from
a heap: the smallest free chunk that is large enough, else the heap's end, which grows. That the
heap's end is given back once 64 MiB of it are free is left out: in a process that runs something
else besides, some small object mostly lies there.
"""

from __future__ import annotations

import bisect

from profiler.trace import PHASES, Trace

#: What M_MMAP_THRESHOLD grows to on a 64-bit system.
MAPPED = 32 << 20

#: What torch asks for is aligned to (c10/core/alignment.h, gAlignment).
_ALIGNMENT = 64


def fresh_bytes(trace: Trace, step: int = 1) -> dict[str, int]:
    """Bytes given anew in each phase of a step."""
    found = dict.fromkeys(PHASES, 0)
    heap = Heap()
    places: dict[int, int] = {}
    marks, place = trace.marks, 0
    phase, at = "setup", 0
    for number, event in enumerate(trace.events):
        while place < len(marks) and marks[place].event <= number:
            phase, at = marks[place].phase, marks[place].step
            place += 1
        if not event:
            continue
        block = abs(event) - 1
        nbytes = trace.blocks[block].nbytes
        before = heap.size
        fresh = 0
        if nbytes >= MAPPED:
            fresh = nbytes if event > 0 else 0
        elif event > 0:
            places[block] = heap.allocate(nbytes)
            fresh = heap.size - before
        else:
            heap.free(places.pop(block))
        if at == step and phase in found:
            found[phase] += fresh
    return found


class Heap:
    """Best fit, neighbours merge, and the end only grows. `size` is where the end is."""

    def __init__(self) -> None:
        self.size = 0
        self._held: dict[int, int] = {}
        self._free: list[tuple[int, int]] = []  # (size, start), sorted
        self._starts: dict[int, int] = {}  # of free chunks: start, size
        self._ends: dict[int, int] = {}  # end, start

    def allocate(self, nbytes: int) -> int:
        """Where a block of `nbytes` begins."""
        size = -(-max(nbytes, 1) // _ALIGNMENT) * _ALIGNMENT
        place = bisect.bisect_left(self._free, (size, -1))
        if place < len(self._free):
            chunk, start = self._free[place]
            self._take(start, chunk)
            if chunk > size:
                self._give(start + size, chunk - size)
        else:
            start = self.size
            if start in self._ends:  # what is free at the end is grown
                start = self._ends[start]
                self._take(start, self.size - start)
            self.size = start + size
        self._held[start] = size
        return start

    def free(self, start: int) -> None:
        """Free the block that begins there."""
        size = self._held.pop(start)
        if start in self._ends:
            before = self._ends[start]
            self._take(before, start - before)
            start, size = before, size + start - before
        after = start + size
        if after in self._starts:
            more = self._starts[after]
            self._take(after, more)
            size += more
        self._give(start, size)

    def _take(self, start: int, size: int) -> None:
        self._free.pop(bisect.bisect_left(self._free, (size, start)))
        del self._starts[start], self._ends[start + size]

    def _give(self, start: int, size: int) -> None:
        bisect.insort(self._free, (size, start))
        self._starts[start] = size
        self._ends[start + size] = start
