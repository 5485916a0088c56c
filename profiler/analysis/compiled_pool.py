"""`profiler.analysis.pools.FixedPool` compiled by numba: the same rules, on arrays.

Numba is optional (the extra `fast`): without it the plain pools run, which takes longer.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from profiler.analysis.pools import (
    ADDRESS_BITS,
    OWN_SEGMENT,
    ROUND,
    SMALL_SEGMENT,
    SMALL_UNITS,
    FixedPool,
)

Ints = npt.NDArray[np.int64]

_MASK = (1 << ADDRESS_BITS) - 1


class CompiledPool:
    """A pool's state as arrays: `keys` are its free blocks by size, then address; `starts` and
    `lengths` the same by address."""

    __slots__ = ("_pool", "keys", "lengths", "starts")

    def __init__(self, pool: FixedPool, keys: Ints, starts: Ints, lengths: Ints) -> None:
        self._pool = pool  # its segments; its free blocks are not kept up
        self.keys, self.starts, self.lengths = keys, starts, lengths

    @classmethod
    def of(cls, pool: FixedPool) -> CompiledPool:
        starts = np.array(sorted(pool.starts), dtype=np.int64)
        lengths = np.array([pool.starts[start] for start in starts.tolist()], dtype=np.int64)
        return cls(pool.without_free(), np.array(pool.keys, dtype=np.int64), starts, lengths)

    @property
    def reserved(self) -> int:
        return self._pool.reserved

    def plain(self) -> FixedPool:
        """The pool itself again."""
        pool = self._pool.without_free()
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            pool.add_free(start, length)
        return pool

    def run(
        self, events: Ints, addresses: Ints, sizes: Ints
    ) -> tuple[CompiledPool, list[tuple[int, int]]]:
        """The pool after the events, and (block, growth) of each that took new memory.

        `addresses` and `sizes` are written as by `FixedPool.run`.
        """
        room = len(self.keys) + len(events) + 1
        keys, starts, lengths = (np.empty(room, dtype=np.int64) for _ in range(3))
        count = len(self.keys)
        keys[:count], starts[:count], lengths[:count] = self.keys, self.starts, self.lengths
        pool = self._pool
        grown = np.empty((2, len(events)), dtype=np.int64)
        count, taken = _run(
            events,
            addresses,
            sizes,
            keys,
            starts,
            lengths,
            count,
            np.array([pool.next, pool.segment, pool.small], dtype=np.int64),
            grown,
        )
        growth = list(zip(grown[0, :taken].tolist(), grown[1, :taken].tolist(), strict=True))
        if growth:
            pool = pool.without_free()
            for _, length in growth:
                pool.add_segment(length)
        new = CompiledPool(pool, keys[:count], starts[:count], lengths[:count])
        return new, growth


def _compiled(function: Any) -> Any:
    return numba.njit(cache=True)(function)


@_compiled
def _first(values: Ints, count: int, wanted: int) -> int:  # pragma: no cover
    """Where `wanted` stands, or would, among the first `count` sorted values."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@_compiled
def _drop(values: Ints, count: int, place: int) -> None:  # pragma: no cover
    for at in range(place, count - 1):
        values[at] = values[at + 1]


@_compiled
def _put(values: Ints, count: int, place: int, value: int) -> None:  # pragma: no cover
    for at in range(count, place, -1):
        values[at] = values[at - 1]
    values[place] = value


@_compiled
def _replace(values: Ints, count: int, place: int, value: int) -> None:  # pragma: no cover
    """The value at `place` by another one, where that belongs."""
    if value < values[place]:
        at = place
        while at > 0 and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
    else:
        at = place
        while at + 1 < count and values[at + 1] < value:
            values[at] = values[at + 1]
            at += 1
    values[at] = value


@_compiled
def _run(
    events: Ints,
    addresses: Ints,
    sizes: Ints,
    keys: Ints,
    starts: Ints,
    lengths: Ints,
    count: int,
    pool: Ints,
    grown: Ints,
) -> tuple[int, int]:  # pragma: no cover
    """`FixedPool.run`; the number of free blocks after it, and of segments taken."""
    following, segment, small = pool[0], pool[1], pool[2] != 0
    kept = 0 if small else SMALL_UNITS
    taken = 0
    old = 0
    for event in events:
        if event > 0:
            block = event - 1
            size = sizes[block]
            at = _first(keys, count, size << ADDRESS_BITS)
            fresh = at == count
            if fresh:
                if small:
                    free = SMALL_SEGMENT
                    address = following
                    following += free + 1
                else:
                    free = segment if size < OWN_SEGMENT else -(-size // ROUND) * ROUND
                    address = following - free
                    following = address - 1
                grown[0, taken] = block
                grown[1, taken] = free
                taken += 1
                place = _first(starts, count, address)
            else:
                address = keys[at] & _MASK
                free = keys[at] >> ADDRESS_BITS
                place = _first(starts, count, address)
            rest = free - size
            if rest > kept:
                after = address + size
                key = rest << ADDRESS_BITS | after
                if fresh:
                    _put(keys, count, _first(keys, count, key), key)
                    _put(starts, count, place, after)
                    _put(lengths, count, place, rest)
                    count += 1
                else:
                    _replace(keys, count, at, key)
                    starts[place] = after
                    lengths[place] = rest
            else:
                if not fresh:
                    _drop(keys, count, at)
                    _drop(starts, count, place)
                    _drop(lengths, count, place)
                    count -= 1
                if rest:
                    sizes[block] = free
            addresses[block] = address
        else:
            block = -event - 1
            address = addresses[block]
            end = address + sizes[block]
            place = _first(starts, count, address)
            joins_before = place > 0 and starts[place - 1] + lengths[place - 1] == address
            joins_after = place < count and starts[place] == end
            if joins_after:
                old = lengths[place] << ADDRESS_BITS | end
                end += lengths[place]
                if joins_before:
                    _drop(keys, count, _first(keys, count, old))
                    _drop(starts, count, place)
                    _drop(lengths, count, place)
                    count -= 1
            if joins_before:
                place -= 1
                address = starts[place]
                old = lengths[place] << ADDRESS_BITS | address
            free = end - address
            key = free << ADDRESS_BITS | address
            if joins_before or joins_after:
                _replace(keys, count, _first(keys, count, old), key)
                starts[place] = address
                lengths[place] = free
            else:
                _put(keys, count, _first(keys, count, key), key)
                _put(starts, count, place, address)
                _put(lengths, count, place, free)
                count += 1
    return count, taken
