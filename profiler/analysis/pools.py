"""One pool of the caching allocator on flat integers, for replays of millions of events.

The same rules as `profiler.analysis.allocator.CachingAllocator` under its default settings, or
with expandable segments, and no limit of memory: then the two pools know nothing of each other and
each can be replayed alone. The tests hold both to the same bytes. Sizes and addresses are in units
of 512 bytes; between two segments lies a gap, so that no blocks merge across it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from typing import Protocol

from profiler.analysis.allocator import (
    MIN_BLOCK_SIZE,
    MIN_LARGE_ALLOC,
    ROUND_LARGE,
    SMALL_BUFFER,
    SMALL_SIZE,
)

UNIT = MIN_BLOCK_SIZE

#: Requests above this are the large pool's; a large block's rest up to this is not split off.
SMALL_UNITS = SMALL_SIZE // UNIT

#: A free block as one integer, ordered by size, then address.
ADDRESS_BITS = 34
_MASK = (1 << ADDRESS_BITS) - 1

SMALL_SEGMENT = SMALL_BUFFER // UNIT
OWN_SEGMENT = MIN_LARGE_ALLOC // UNIT
ROUND = ROUND_LARGE // UNIT


class Pool(Protocol):
    """A pool's free blocks and segments.

    Attributes:
        reserved: what its segments take.
        keys: the free blocks.
        starts: size of the free block that begins at an address.
    """

    reserved: int
    keys: list[int]
    starts: dict[int, int]

    def copy(self) -> Pool:
        """A pool of its own in the same state."""

    def token(self) -> tuple[object, ...]:
        """The state, but for the blocks in use: what is equal goes on equally."""

    def run(
        self, program: Sequence[int], addresses: list[int], sizes: list[int]
    ) -> tuple[list[tuple[int, int]], list[int]]:
        """Allocate (+(i + 1)) and free (-(i + 1)) blocks, in order.

        Args:
            addresses: of each block, written when it is allocated.
            sizes: of each block; where a rest is not split off it becomes part of the block.

        Returns:
            (block, growth) of each allocation that took new memory, and the blocks that a rest
            became part of.
        """


class FixedPool:
    """Segments of fixed sizes (`Pool`)."""

    __slots__ = (
        "_layout",
        "ends",
        "keys",
        "next",
        "reserved",
        "segment",
        "segments",
        "small",
        "starts",
    )

    def __init__(self, *, small: bool, large_segment: int) -> None:
        self.small = small
        self.segment = large_segment
        self.reserved = 0
        self.next = 0 if small else _MASK  # large segments lie each below the last
        self.keys: list[int] = []
        self.starts: dict[int, int] = {}  # size of the free block that begins there
        self.ends: dict[int, int] = {}  # start of the free block that ends there
        self.segments: dict[int, int] = {}  # size of each, by its start, oldest first
        self._layout: tuple[tuple[int, int], ...] | None = ()  # of the segments, shared by copies

    def copy(self) -> FixedPool:
        new = self.without_free()
        new.keys = self.keys.copy()
        new.starts = self.starts.copy()
        new.ends = self.ends.copy()
        return new

    def without_free(self) -> FixedPool:
        """A pool with these segments, of which nothing is free."""
        new = FixedPool(small=self.small, large_segment=self.segment)
        new.reserved = self.reserved
        new.next = self.next
        new.segments = self.segments.copy()
        new._layout = self._layout
        return new

    def token(self) -> tuple[object, ...]:
        if self._layout is None:
            self._layout = tuple(self.segments.items())
        return (tuple(self.keys), self._layout)

    def run(
        self, program: Sequence[int], addresses: list[int], sizes: list[int]
    ) -> tuple[list[tuple[int, int]], list[int]]:
        grown: list[tuple[int, int]] = []
        whole: list[int] = []
        keys, starts, ends = self.keys, self.starts, self.ends
        pop, pop_start, pop_end = keys.pop, starts.pop, ends.pop
        shift, mask = ADDRESS_BITS, _MASK
        kept = 0 if self.small else SMALL_UNITS
        for event in program:
            if event > 0:
                block = event - 1
                size = sizes[block]
                at = bisect_left(keys, size << shift)
                try:
                    key = pop(at)
                except IndexError:
                    address, free = self._take(size)
                    grown.append((block, free))
                else:
                    address = key & mask
                    free = key >> shift
                    del starts[address]
                rest = free - size
                if rest > kept:
                    after = address + size
                    starts[after] = rest
                    ends[address + free] = after
                    insort(keys, rest << shift | after, 0, at)
                else:
                    pop_end(address + free, None)
                    if rest:
                        sizes[block] = free
                        whole.append(block)
                addresses[block] = address
            else:
                block = -event - 1
                address = addresses[block]
                end = address + sizes[block]
                before = pop_end(address, -1)
                if before >= 0:
                    del keys[bisect_left(keys, (address - before) << shift | before)]
                    address = before
                after = pop_start(end, 0)
                if after:
                    del keys[bisect_left(keys, after << shift | end)]
                    end += after
                free = end - address
                starts[address] = free
                ends[end] = address
                insort(keys, free << shift | address)
        return grown, whole

    def emptied(self) -> tuple[FixedPool, Callable[[int], int]]:
        """This pool without the segments that are wholly free, its segments counted anew so that
        what is equal but for addresses becomes equal, and where an address of a block is then."""
        pool = FixedPool(small=self.small, large_segment=self.segment)
        moves: dict[int, int] = {}
        for start, length in self.segments.items():
            if self.starts.get(start) != length:
                moves[start] = pool.add_segment(length) - start
        begins = sorted(moves)
        ends = [start + self.segments[start] for start in begins]

        def moved(address: int) -> int:
            at = bisect_right(begins, address) - 1
            return address + moves[begins[at]]

        for address, size in self.starts.items():
            at = bisect_right(begins, address) - 1
            if at >= 0 and address < ends[at]:
                pool.add_free(address + moves[begins[at]], size)
        return pool, moved

    def _take(self, size: int) -> tuple[int, int]:
        """A new segment: its address and size."""
        if self.small:
            length = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            length = self.segment
        else:
            length = -(-size // ROUND) * ROUND
        return self.add_segment(length), length

    def add_segment(self, length: int) -> int:
        if self.small:
            address = self.next
            self.next += length + 1
        else:
            address = self.next - length
            self.next = address - 1
        self.segments[address] = length
        self._layout = None
        self.reserved += length
        return address

    def add_free(self, address: int, size: int) -> None:
        self.starts[address] = size
        self.ends[address + size] = address
        insort(self.keys, size << ADDRESS_BITS | address)


class ExpandablePool:
    """One segment that grows by pages (`Pool`), as long as no page is given back."""

    __slots__ = ("ends", "keys", "page", "reserved", "starts")

    def __init__(self, *, page: int) -> None:
        self.page = page
        self.reserved = 0
        self.keys: list[int] = []
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}

    def copy(self) -> ExpandablePool:
        new = ExpandablePool(page=self.page)
        new.reserved = self.reserved
        new.keys = self.keys.copy()
        new.starts = self.starts.copy()
        new.ends = self.ends.copy()
        return new

    def token(self) -> tuple[object, ...]:
        return (tuple(self.keys), self.reserved)

    def add_free(self, address: int, size: int) -> None:
        self.starts[address] = size
        self.ends[address + size] = address
        insort(self.keys, size << ADDRESS_BITS | address)

    def run(
        self, program: Sequence[int], addresses: list[int], sizes: list[int]
    ) -> tuple[list[tuple[int, int]], list[int]]:
        grown: list[tuple[int, int]] = []
        keys, starts, ends = self.keys, self.starts, self.ends
        pop, pop_start, pop_end = keys.pop, starts.pop, ends.pop
        shift, mask, page = ADDRESS_BITS, _MASK, self.page
        top = self.reserved
        for event in program:
            if event > 0:
                block = event - 1
                size = sizes[block]
                at = bisect_left(keys, size << shift)
                if at < len(keys):
                    key = keys[at]
                    # The block at the growing end goes last, whatever its size.
                    if (key & mask) + (key >> shift) == top and at + 1 < len(keys):
                        at += 1
                    key = pop(at)
                    address = key & mask
                    free = key >> shift
                    del starts[address]
                else:
                    address = pop_end(top, -1)
                    free = 0
                    if address < 0:
                        address = top
                    else:
                        free = pop_start(address)
                        at = bisect_left(keys, free << shift | address)
                        del keys[at]
                    growth = -(-(size - free) // page) * page
                    top += growth
                    free += growth
                    grown.append((block, growth))
                if free > size:
                    after = address + size
                    starts[after] = free - size
                    ends[address + free] = after
                    insort(keys, (free - size) << shift | after)
                else:
                    pop_end(address + free, None)
                addresses[block] = address
            else:
                block = -event - 1
                address = addresses[block]
                end = address + sizes[block]
                before = pop_end(address, -1)
                if before >= 0:
                    del keys[bisect_left(keys, (address - before) << shift | before)]
                    address = before
                after = pop_start(end, 0)
                if after:
                    del keys[bisect_left(keys, after << shift | end)]
                    end += after
                free = end - address
                starts[address] = free
                ends[end] = address
                insort(keys, free << shift | address)
        self.reserved = top
        return grown, []
