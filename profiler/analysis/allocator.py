"""A replay of PyTorch's CUDA caching allocator: which bytes it takes for which requests.

The rules are those of `DeviceCachingAllocator` in PyTorch 2.13's `c10/cuda/
CUDACachingAllocator.cpp` (named CCA below, with the function a rule comes from); the constants
stand in `c10/core/AllocatorConfig.h`. Requests are rounded, served from the smallest free block
that fits, from segments that are taken from the device and kept; neighbours merge when freed.

What is not in it: more than one stream (every block belongs to the default one), private pools
(CUDA graphs, `MemPool`), and the device's own choice of addresses, which decides where two free
blocks of one size compete: the lower address wins. Small segments are laid out upwards in the order
in which they are taken and large ones downwards, each directly below the last, as the driver's
addresses in memory snapshots have it; no address is used twice, so a device that reuses them may
pick the other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from profiler.analysis.alloc_conf import MIB, UNLIMITED, AllocConf
from profiler.errors import ProfilerError

__all__ = [
    "AllocConf",
    "CachingAllocator",
    "OutOfMemory",
    "Replay",
    "Segment",
    "SegmentBlock",
    "replay",
]

MIN_BLOCK_SIZE = 512  # AllocatorConfig.h, kMinBlockSize: every size is a multiple of it
SMALL_SIZE = 1 * MIB  # kSmallSize: the largest request of the small pool
SMALL_BUFFER = 2 * MIB  # kSmallBuffer: the small pool's segments
MIN_LARGE_ALLOC = 10 * MIB  # kMinLargeAlloc: from here on a request gets its own segment
ROUND_LARGE = 2 * MIB  # kRoundLarge: ... which is a multiple of this

#: Free blocks sort by size, then address (CCA, `BlockComparatorSize`), as one integer.
_ADDRESS_BITS = 64
_FIRST_ADDRESS = 1 << 40
#: Large segments lie below it; viewers in JavaScript read no larger integer exactly.
_LAST_ADDRESS = 1 << 53
#: Address space of an expandable segment when the device's memory is not given.
_UNBOUNDED_SPACE = 1 << 50

_by_address = attrgetter("address")


class OutOfMemory(ProfilerError):  # noqa: N818 - the field's word
    """A request that no free block serves and no memory is left for. Sizes are in bytes.

    `requested` is what was asked for and `segment` the segment that would have been needed;
    `allocated` and `reserved` are what was held then, after every cached segment that could be
    given back was; `capacity` is what may be reserved. `event` is the position in a replayed
    trace, -1 outside a replay.
    """

    def __init__(
        self,
        requested: int,
        segment: int,
        allocated: int,
        reserved: int,
        capacity: int,
        event: int = -1,
    ) -> None:
        super().__init__(requested, segment, allocated, reserved, capacity, event)
        self.requested = requested
        self.segment = segment
        self.allocated = allocated
        self.reserved = reserved
        self.capacity = capacity
        self.event = event

    def __str__(self) -> str:
        return (
            f"out of memory: {self.requested} bytes need a segment of {self.segment}; "
            f"{self.reserved} of {self.capacity} bytes are reserved, {self.allocated} allocated"
        )


@dataclass(frozen=True, slots=True)
class SegmentBlock:
    """A block of a segment, used (`requested` bytes of it) or free (`requested` is 0)."""

    address: int
    size: int
    requested: int
    allocated: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """Memory taken from the device in one piece; `blocks` tile it, lowest address first.

    As in `torch.cuda.memory_snapshot`, an expandable segment shows as one segment for each run of
    mapped pages.
    """

    address: int
    size: int
    large: bool
    expandable: bool
    blocks: tuple[SegmentBlock, ...]


class _Space:
    """The reserved addresses of one expandable segment, mapped page by page (CCA,
    `ExpandableSegment`)."""

    __slots__ = ("base", "page", "size")

    def __init__(self, base: int, page: int, size: int) -> None:
        self.base = base
        self.page = page
        self.size = size


class _Pool:
    """Free blocks of one pool (CCA, `BlockPool`): `keys` and `blocks` run in parallel, sorted."""

    __slots__ = ("blocks", "keys", "searches", "small", "unmapped")

    def __init__(self, small: bool) -> None:
        self.small = small
        self.keys: list[int] = []
        self.blocks: list[_Block] = []
        self.unmapped: list[_Block] = []
        self.searches = 0

    def add(self, block: _Block) -> None:
        block.born = self.searches
        key = block.size << _ADDRESS_BITS | block.address
        at = bisect_left(self.keys, key)
        self.keys.insert(at, key)
        self.blocks.insert(at, block)

    def remove(self, block: _Block) -> None:
        at = bisect_left(self.keys, block.size << _ADDRESS_BITS | block.address)
        del self.keys[at]
        del self.blocks[at]

    def first_of(self, size: int) -> int:
        """Position of the smallest free block of at least `size` bytes."""
        return bisect_left(self.keys, size << _ADDRESS_BITS)


class _Block:
    """A piece of a segment, linked to its neighbours (CCA, `Block`)."""

    __slots__ = (
        "address",
        "allocated",
        "born",
        "mapped",
        "next",
        "pool",
        "prev",
        "requested",
        "size",
        "space",
    )

    def __init__(
        self, address: int, size: int, pool: _Pool, space: _Space | None, mapped: bool
    ) -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.space = space
        self.mapped = mapped
        self.allocated = False
        self.requested = 0
        self.born = 0
        self.prev: _Block | None = None
        self.next: _Block | None = None

    def put_between(self, before: _Block | None, after: _Block | None) -> None:
        self.prev = before
        self.next = after
        if before is not None:
            before.next = self
        if after is not None:
            after.prev = self


class CachingAllocator:
    """PyTorch's allocator for one device and one stream.

    Args:
        conf: its settings.
        capacity: bytes the device can give (its total less what the context and other processes
            hold); None for no limit.
        total: the device's memory in bytes, of which `per_process_memory_fraction` is a share;
            default: `capacity`.

    Attributes:
        allocated: bytes in use, as `torch.cuda.memory_allocated` counts them: whole blocks,
            rounding and unsplit remainders included.
        reserved: bytes taken from the device, as `torch.cuda.memory_reserved`.
        requested: bytes asked for.
        on_segment: called as `on_segment(action, address, size)` when memory is taken from the
            device or given back, with the names of torch's memory snapshots: segment_alloc,
            segment_free, and for pages of an expandable segment segment_map and segment_unmap.
    """

    def __init__(
        self,
        conf: AllocConf | None = None,
        capacity: int | None = None,
        *,
        total: int | None = None,
    ) -> None:
        self.conf = conf or AllocConf()
        self.capacity = capacity
        self.allocated = 0
        self.reserved = 0
        self.requested = 0
        self.on_segment: Callable[[str, int, int], None] | None = None
        self._small = _Pool(small=True)
        self._large = _Pool(small=False)
        self._active: dict[int, _Block] = {}
        self._next_address = _FIRST_ADDRESS
        self._last_address = _LAST_ADDRESS
        self._total = capacity if total is None else total
        # CCA, `setMemoryFraction`: a share of 1 sets no limit.
        fraction = self.conf.per_process_memory_fraction
        limited = self._total is not None and fraction < 1.0
        self._allowed = int(fraction * (self._total or 0)) if limited else UNLIMITED
        self._collects = limited and self.conf.garbage_collection_threshold > 0.0
        self._rounds = any(steps > 1 for steps in self.conf.roundup_power2_divisions)

    def malloc(self, nbytes: int) -> int:
        """The address of a block for `nbytes` bytes; 0 for none, which takes nothing.

        Raises:
            OutOfMemory: nothing serves it, even with every cached segment given back.
        """
        if nbytes < 0:
            raise ValueError(f"cannot allocate {nbytes} bytes")
        return self._allocate(nbytes).address if nbytes else 0

    def free(self, address: int) -> None:
        """Gives the block at `address` back to its pool.

        Raises:
            ValueError: no block in use begins there.
        """
        if address == 0:
            return
        block = self._active.get(address)
        if block is None:
            raise ValueError(f"no block in use at address {address:#x}")
        self._free(block)

    def block_size(self, address: int) -> int:
        """Bytes of the block in use at `address`: the request, rounded, with what was not split."""
        return self._active[address].size if address else 0

    def empty_cache(self) -> None:
        """Gives back every segment (expandable: every page) that is wholly free.

        CCA, `release_blocks`.
        """
        for pool in (self._large, self._small):
            for block in [block for block in pool.blocks if _releasable(block)]:
                if block.space is None:
                    self._release(block)
                else:
                    self._unmap(block, block.space)

    @property
    def inactive_split(self) -> int:
        """Free bytes of segments in use, as `inactive_split_bytes.all.current`.

        Expandable segments do not count, since their free pages can be given back.
        """
        return sum(
            block.size
            for pool in (self._small, self._large)
            for block in pool.blocks
            if block.space is None and (block.prev is not None or block.next is not None)
        )

    def snapshot(self) -> list[Segment]:
        """The segments and their blocks, lowest address first (CCA, `snapshot`)."""
        heads = [
            block
            for block in (*self._small.blocks, *self._large.blocks, *self._active.values())
            if block.prev is None or not block.prev.mapped
        ]
        segments = []
        for head in sorted(heads, key=_by_address):
            blocks = tuple(
                SegmentBlock(block.address, block.size, block.requested, block.allocated)
                for block in _mapped_from(head)
            )
            segments.append(
                Segment(
                    address=head.address,
                    size=sum(block.size for block in blocks),
                    large=not head.pool.small,
                    expandable=head.space is not None,
                    blocks=blocks,
                )
            )
        return segments

    def _allocate(self, nbytes: int) -> _Block:
        """CCA, `malloc` and `alloc_found_block`."""
        size = self._round(nbytes)
        pool = self._small if size <= SMALL_SIZE else self._large
        block = self._find(pool, size)
        if block is None:
            block = self._obtain(pool, size)
            if block is None:
                raise OutOfMemory(
                    requested=nbytes,
                    segment=self._segment_size(size),
                    allocated=self.allocated,
                    reserved=self.reserved,
                    capacity=min(
                        self._allowed, UNLIMITED if self.capacity is None else self.capacity
                    ),
                )
        remaining = block.size - size
        # CCA, `should_split`
        if pool.small or self.conf.expandable_segments:
            split = remaining >= MIN_BLOCK_SIZE
        else:
            split = remaining > SMALL_SIZE and size < self.conf.max_split_size
        if split:
            rest = block
            block = _Block(rest.address, size, pool, rest.space, mapped=True)
            block.put_between(rest.prev, rest)
            rest.address += size
            rest.size = remaining
            pool.add(rest)
        block.allocated = True
        block.requested = nbytes
        self._active[block.address] = block
        self.allocated += block.size
        self.requested += nbytes
        return block

    def _free(self, block: _Block) -> None:
        """CCA, `free` and `free_block`."""
        pool = block.pool
        self.allocated -= block.size
        self.requested -= block.requested
        del self._active[block.address]
        block.allocated = False
        block.requested = 0
        _merge(block, block.prev, pool)
        _merge(block, block.next, pool)
        pool.add(block)

    def _round(self, nbytes: int) -> int:
        """CCA, `round_size`."""
        if self._rounds and nbytes >= MIN_BLOCK_SIZE:
            # AllocatorConfig.cpp, `roundup_power2_divisions`: intervals begin at 1 MiB.
            steps = self.conf.roundup_power2_divisions
            interval = min(max(nbytes.bit_length() - MIB.bit_length(), 0), len(steps) - 1)
            divisions = steps[interval]
            if divisions > 1 and nbytes > MIN_BLOCK_SIZE * divisions:
                return _round_to_division(nbytes, divisions)
        return -(-nbytes // MIN_BLOCK_SIZE) * MIN_BLOCK_SIZE

    def _segment_size(self, size: int) -> int:
        """CCA, `get_allocation_size`."""
        if size <= SMALL_SIZE:
            return SMALL_BUFFER
        if size < MIN_LARGE_ALLOC:
            return self.conf.large_segment_size
        return -(-size // ROUND_LARGE) * ROUND_LARGE

    def _find(self, pool: _Pool, size: int) -> _Block | None:
        """The best fit, taken out of the pool; None without one (CCA, `get_free_block`)."""
        pool.searches += 1
        blocks = pool.blocks
        at = pool.first_of(size)
        if at == len(blocks):
            return None
        if self.conf.expandable_segments:
            # A block at the growing end counts with what it can grow by, so that others go first.
            while at + 1 < len(blocks) and _reach(blocks[at + 1]) < _reach(blocks[at]):
                at += 1
        block = blocks[at]
        limit = self.conf.max_split_size
        if size < limit:
            if block.size >= limit:
                return None
        elif block.size >= size + self.conf.max_non_split_rounding:
            return None
        del blocks[at]
        del pool.keys[at]
        return block

    def _obtain(self, pool: _Pool, size: int) -> _Block | None:
        """New memory for `size` bytes, cached segments given back where needed (CCA, `malloc`)."""
        if self._collects:
            self._collect_garbage()
        block = self._reserve(pool, size)
        if block is None and self._release_oversize(pool, size):
            block = self._reserve(pool, size)
        if block is None:
            self.empty_cache()
            block = self._reserve(pool, size)
        return block

    def _reserve(self, pool: _Pool, size: int) -> _Block | None:
        """A new segment, or a longer expandable one; None if memory is short (`alloc_block`)."""
        segment = self._segment_size(size)
        if self.reserved + segment > self._allowed:
            return None
        if self.conf.expandable_segments:
            return self._expand(pool, size)
        if self.capacity is not None and self.reserved + segment > self.capacity:
            return None
        self.reserved += segment
        address = self._take_addresses(segment, down=not pool.small)
        if self.on_segment is not None:
            self.on_segment("segment_alloc", address, segment)
        return _Block(address, segment, pool, None, mapped=True)

    def _take_addresses(self, size: int, *, down: bool) -> int:
        whole = -(-size // SMALL_BUFFER) * SMALL_BUFFER
        if down:
            self._last_address -= whole
            return self._last_address
        address = self._next_address
        self._next_address += whole
        return address

    def _release(self, block: _Block) -> None:
        """CCA, `release_block`: a segment that is one free block goes back to the device."""
        block.pool.remove(block)
        self.reserved -= block.size
        if self.on_segment is not None:
            self.on_segment("segment_free", block.address, block.size)

    def _release_oversize(self, pool: _Pool, size: int) -> bool:
        """Gives back unsplittable blocks, enough for `size`; whether that succeeded.

        CCA, `release_available_cached_blocks`.
        """
        limit = self.conf.max_split_size
        if limit == UNLIMITED:
            return False
        wanted = max(size, limit)
        at = pool.first_of(wanted)
        if at < len(pool.blocks) and pool.blocks[at].space is None:
            self._release(pool.blocks[at])
            return True
        # None is large enough alone: the largest go, one after the other.
        released = 0
        for block in pool.blocks[:at][::-1]:
            if released >= wanted or block.size < limit:
                break
            if block.space is None:
                released += block.size
                self._release(block)
        return released >= wanted

    def _collect_garbage(self) -> None:
        """Gives back the segments of the large pool that went longest without use.

        CCA, `garbage_collect_cached_blocks`. A block's age counts searches of its pool.
        """
        threshold = int(self.conf.garbage_collection_threshold * self._allowed)
        if self.reserved <= threshold:
            return
        target = self.reserved - threshold
        pool = self._large
        whole = [block for block in pool.blocks if block.prev is None and block.next is None]
        age = sum(pool.searches - block.born for block in whole)
        count = len(whole)
        reclaimed = 0
        freed = True
        while reclaimed < target and freed and count:
            mean = age / count
            freed = False
            for block in list(whole):
                if block.space is None and pool.searches - block.born >= mean:
                    freed = True
                    reclaimed += block.size
                    age -= pool.searches - block.born
                    count -= 1
                    whole.remove(block)
                    self._release(block)

    def _expand(self, pool: _Pool, size: int) -> _Block | None:
        """Maps pages until a block of `size` bytes is free (`try_allocate_expandable_block`)."""
        candidate = self._expandable(pool, size)
        if not candidate.mapped and not self._map(candidate, min(candidate.size, size)):
            return None
        while candidate.size < size:
            following = candidate.next
            if following is None:  # more than the whole address space
                return None
            if not self._map(following, min(size - candidate.size, following.size)):
                return None
            candidate = following  # it has taken in the free block before it
        pool.remove(candidate)
        return candidate

    def _expandable(self, pool: _Pool, size: int) -> _Block:
        """The lowest unmapped or free block with room for `size` (CCA, `find_expandable_block`)."""
        for unmapped in pool.unmapped:
            before = unmapped.prev
            start = before if before is not None and not before.allocated else unmapped
            room = 0
            block: _Block | None = start
            while room < size and block is not None and not block.allocated:
                room += block.size
                block = block.next
            if room >= size:
                return start
        page = SMALL_BUFFER if pool.small else self.conf.large_segment_size
        # 1 1/8 of the device's memory, so that pages can move to the segment's end.
        total = _UNBOUNDED_SPACE if self._total is None else self._total + self._total // 8
        length = -(-total // page) * page
        space = _Space(self._take_addresses(length, down=False), page, length)
        fresh = _Block(space.base, length, pool, space, mapped=False)
        insort(pool.unmapped, fresh, key=_by_address)
        return fresh

    def _map(self, block: _Block, size: int) -> bool:
        """Maps whole pages from `block`'s start for `size` bytes; whether memory sufficed.

        CCA, `map_block` and `ExpandableSegment::map`.
        """
        space = block.space
        assert space is not None
        length = -(-size // space.page) * space.page
        if self.capacity is not None and self.reserved + length > self.capacity:
            return False
        pool = block.pool
        pool.unmapped.remove(block)
        if self.on_segment is not None:
            self.on_segment("segment_map", block.address, length)
        block.mapped = True
        if length < block.size:
            rest = _Block(block.address + length, block.size - length, pool, space, mapped=False)
            rest.put_between(block, block.next)
            insort(pool.unmapped, rest, key=_by_address)
            block.size = length
        _merge(block, block.prev, pool)
        _merge(block, block.next, pool)
        pool.add(block)
        self.reserved += length
        return True

    def _unmap(self, block: _Block, space: _Space) -> None:
        """Gives back the pages that lie wholly in a free block.

        CCA, `unmap_block`, `ExpandableSegment::unmap` and `release_expandable_segment`.
        """
        page = space.page
        start = space.base - (space.base - block.address) // page * page  # rounded up
        end = space.base + (block.address + block.size - space.base) // page * page
        if start >= end:
            return
        pool = block.pool
        pool.remove(block)
        if start > block.address:
            before = _Block(block.address, start - block.address, pool, space, mapped=True)
            before.put_between(block.prev, block)
            pool.add(before)
        if end < block.address + block.size:
            after = _Block(end, block.address + block.size - end, pool, space, mapped=True)
            after.put_between(block, block.next)
            pool.add(after)
        block.address = start
        block.size = end - start
        block.mapped = False
        self.reserved -= end - start
        if self.on_segment is not None:
            self.on_segment("segment_unmap", start, end - start)
        _merge(block, block.prev, pool)
        _merge(block, block.next, pool)
        if block.prev is not None or block.next is not None:
            insort(pool.unmapped, block, key=_by_address)


def _releasable(block: _Block) -> bool:
    return block.space is not None or (block.prev is None and block.next is None)


def _reach(block: _Block) -> int:
    """A free block's size with the unmapped addresses behind it."""
    following = block.next
    return block.size + (following.size if following is not None and not following.mapped else 0)


def _mapped_from(head: _Block) -> Iterator[_Block]:
    block: _Block | None = head
    while block is not None and block.mapped:
        yield block
        block = block.next


def _merge(block: _Block, other: _Block | None, pool: _Pool) -> None:
    """Takes a free neighbour of the same kind into `block` (CCA, `try_merge_blocks`)."""
    if other is None or other.allocated or block.mapped != other.mapped:
        return
    if other.mapped:
        pool.remove(other)
    else:
        pool.unmapped.remove(other)
    if block.prev is other:
        block.address = other.address
        block.put_between(other.prev, block.next)
    else:
        block.put_between(block.prev, other.next)
    block.size += other.size


def _round_to_division(nbytes: int, divisions: int) -> int:
    """The next of `divisions` even steps between two powers of two (a power of two stays).

    CCA, `roundup_power2_next_division`.
    """
    floor = 1 << (nbytes.bit_length() - 1)
    step = floor >> (divisions.bit_length() - 1)
    return -(-nbytes // step) * step


@dataclass(frozen=True, slots=True)
class Replay:
    """What the allocator held after each event of a trace, in bytes.

    `allocated` and `reserved` have one entry per event that was replayed, `block_bytes` one per
    block: the size of the block that served it, 0 where none was taken. `oom` is the request
    that failed; nothing after it is replayed.
    """

    allocated: array[int]
    reserved: array[int]
    block_bytes: array[int]
    oom: OutOfMemory | None


def replay(
    sizes: Sequence[int],
    events: array[int],
    *,
    conf: AllocConf | None = None,
    capacity: int | None = None,
    total: int | None = None,
) -> Replay:
    """Runs a trace of allocations and frees through a fresh allocator.

    Args:
        sizes: requested bytes of each block.
        events: +(i + 1) allocates block i, -(i + 1) frees it, 0 empties the cache.
        conf, capacity, total: as for `CachingAllocator`.

    Raises:
        ValueError: a block is allocated twice, freed without being held, or has no size.
    """
    allocator = CachingAllocator(conf, capacity, total=total)
    allocate, free = allocator._allocate, allocator._free
    held: dict[int, _Block | None] = {}
    allocated = array("q", bytes(8 * len(events)))
    reserved = array("q", allocated)
    block_bytes = array("q", bytes(8 * len(sizes)))
    oom: OutOfMemory | None = None
    for position, event in enumerate(events):
        if event > 0:
            index = event - 1
            if index in held or index >= len(sizes) or sizes[index] < 0:
                raise ValueError(f"event {position} allocates block {index} wrongly")
            try:
                block = allocate(sizes[index]) if sizes[index] else None
            except OutOfMemory as error:
                error.event = position
                oom = error
                del allocated[position:]
                del reserved[position:]
                break
            held[index] = block
            if block is not None:
                block_bytes[index] = block.size
        elif event < 0:
            index = -event - 1
            if index not in held:
                raise ValueError(f"event {position} frees block {index}, which is not held")
            block = held.pop(index)
            if block is not None:
                free(block)
        else:
            allocator.empty_cache()
        allocated[position] = allocator.allocated
        reserved[position] = allocator.reserved
    return Replay(allocated, reserved, block_bytes, oom)
