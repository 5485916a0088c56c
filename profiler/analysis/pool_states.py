"""From the allocator's state to that of its two pools on flat integers, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.allocator import SMALL_BUFFER, CachingAllocator, _Block, _Pool
from profiler.analysis.pools import SMALL_UNITS, UNIT, ExpandablePool, FixedPool, Pool

#: A block of a segment: offset, size, and which block in use it is, -1 for none.
_Piece = tuple[int, int, int]


@dataclass(slots=True)
class Apart:
    """Two pools, and the blocks in use: address and size of each, 0 for one of no bytes."""

    small: Pool
    large: Pool
    addresses: list[int]
    sizes: list[int]

    def reserved(self) -> int:
        """Bytes of both pools."""
        return (self.small.reserved + self.large.reserved) * UNIT


def take_apart(allocator: CachingAllocator, held: Sequence[_Block | None]) -> Apart | None:
    """The pools of an allocator whose blocks in use are `held`, None for one that an expandable
    segment with pages given back has left in pieces."""
    places: dict[int, int] = {}
    small: Pool | None
    large: Pool | None
    if allocator.conf.expandable_segments:
        small = _expandable(allocator, allocator._small, SMALL_BUFFER, places)
        large = _expandable(allocator, allocator._large, allocator.conf.large_segment_size, places)
        if small is None or large is None:
            return None
    else:
        small = _fixed(allocator, allocator._small, places)
        large = _fixed(allocator, allocator._large, places)
    return Apart(
        small,
        large,
        [0 if one is None else places[one.address] for one in held],
        [0 if one is None else one.size // UNIT for one in held],
    )


def put_together(
    apart: Apart, conf: AllocConf, capacity: int | None
) -> tuple[CachingAllocator, list[_Block | None]]:
    """The allocator in the pools' state, and its blocks in use in their order."""
    allocator = CachingAllocator(conf, capacity)
    held: list[_Block | None] = [None] * len(apart.sizes)
    for which, pool, target in (
        (False, apart.small, allocator._small),
        (True, apart.large, allocator._large),
    ):
        used = [
            (address, size, number)
            for number, (address, size) in enumerate(zip(apart.addresses, apart.sizes, strict=True))
            if size and (size > SMALL_UNITS) == which
        ]
        free = [(address, size, -1) for address, size in pool.starts.items()]
        pieces = sorted(used + free)
        if isinstance(pool, FixedPool):
            _fill_fixed(allocator, target, pool, pieces, held)
        elif pool.reserved:
            _fill_expandable(allocator, target, pool.reserved * UNIT, pieces, held)
    return allocator, held


def _heads(allocator: CachingAllocator, source: _Pool) -> list[_Block]:
    used = (one for one in allocator._active.values() if one.pool is source)
    heads = [one for one in (*source.blocks, *used) if one.prev is None]
    return sorted(heads, key=lambda block: block.address)


def _fixed(allocator: CachingAllocator, source: _Pool, places: dict[int, int]) -> FixedPool:
    segment = allocator.conf.large_segment_size // UNIT
    pool = FixedPool(small=source.small, large_segment=segment)
    heads = _heads(allocator, source)
    for head in heads if source.small else reversed(heads):  # in the order in which they lie
        chain = list(_chain(head))
        start = pool.add_segment(sum(block.size for block in chain) // UNIT)
        for block in chain:
            if block.allocated:
                places[block.address] = start
            else:
                pool.add_free(start, block.size // UNIT)
            start += block.size // UNIT
    return pool


def _expandable(
    allocator: CachingAllocator, source: _Pool, page: int, places: dict[int, int]
) -> ExpandablePool | None:
    pool = ExpandablePool(page=page // UNIT)
    heads = [*_heads(allocator, source), *(one for one in source.unmapped if one.prev is None)]
    if len(heads) > 1:
        return None
    for head in heads:
        chain = list(_chain(head))
        if not all(block.mapped for block in chain[:-1]):
            return None
        top = 0
        for block in chain:
            if not block.mapped:
                break
            if block.allocated:
                places[block.address] = top
            else:
                pool.add_free(top, block.size // UNIT)
            top += block.size // UNIT
        pool.reserved = top
    return pool


def _chain(head: _Block) -> Iterable[_Block]:
    block: _Block | None = head
    while block is not None:
        yield block
        block = block.next


def _fill_fixed(
    allocator: CachingAllocator,
    target: _Pool,
    pool: FixedPool,
    pieces: list[_Piece],
    held: list[_Block | None],
) -> None:
    if not pool.small:
        pieces = pieces[::-1]
    position = 0
    for start, length in sorted(pool.segments.items(), reverse=not pool.small):
        inside = []
        while position < len(pieces) and start <= pieces[position][0] < start + length:
            address, size, number = pieces[position]
            inside.append((address - start, size, number))
            position += 1
        inside.sort()
        segment = allocator._take_addresses(length * UNIT, down=not pool.small)
        allocator.reserved += length * UNIT
        _carve(allocator, _Block(segment, length * UNIT, target, None, mapped=True), inside, held)


def _fill_expandable(
    allocator: CachingAllocator,
    target: _Pool,
    length: int,
    pieces: list[_Piece],
    held: list[_Block | None],
) -> None:
    capacity, allocator.capacity = allocator.capacity, None  # it held this before
    whole = allocator._expandable(target, length)
    allocator._map(whole, length)
    allocator.capacity = capacity
    target.remove(whole)
    _carve(allocator, whole, pieces, held)


def _carve(
    allocator: CachingAllocator,
    whole: _Block,
    pieces: Iterable[_Piece],
    held: list[_Block | None],
) -> None:
    """Put a segment's blocks in the place of one free block that is as large."""
    before, after = whole.prev, whole.next
    for offset, size, number in pieces:
        block = _Block(
            whole.address + offset * UNIT, size * UNIT, whole.pool, whole.space, mapped=True
        )
        block.put_between(before, after)
        before = block
        if number < 0:
            whole.pool.add(block)
            continue
        block.allocated = True
        block.requested = block.size
        allocator._active[block.address] = block
        allocator.allocated += block.size
        allocator.requested += block.size
        held[number] = block
