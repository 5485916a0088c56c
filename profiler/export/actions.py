"""What the allocator does for a trace, action by action, with addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.allocator import CachingAllocator, OutOfMemory, Segment, SegmentBlock
from profiler.trace import Trace

#: Where the storages of a CPU trace are laid out, and what their addresses are multiples of (a
#: CPU tensor's are: c10/core/alignment.h, `gAlignment`).
_FIRST_ADDRESS = 1 << 40
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of an allocator's history. Sizes are in bytes.

    `kind` is alloc, free, segment_alloc, segment_free, segment_map, segment_unmap or oom; `size`
    is that of the whole block or segment, and of an oom the request, whose `address` is how much
    of the device was free; `event` is the position in the trace, `block` the trace's block, -1
    for a segment.
    """

    kind: str
    address: int
    size: int
    event: int
    block: int = -1


@dataclass(frozen=True, slots=True)
class History:
    """The actions of a trace, the segments after the last one, and which block is where then."""

    actions: list[Action]
    segments: list[Segment]
    held: dict[int, int]


def history(trace: Trace, conf: AllocConf, capacity: int | None) -> History:
    """Run a trace through the allocator, as `profiler.analysis.memory.levels` does.

    Where `capacity` does not hold it, the history is that of a card that is large enough, with an
    oom where the card would have ended it. Storages of a CPU trace are segments of their own.
    """
    if not trace.cuda:
        return _cpu(trace)
    try:
        return _cuda(trace, conf, capacity, None)
    except OutOfMemory as oom:
        return _cuda(trace, conf, None, oom)


def _cuda(trace: Trace, conf: AllocConf, capacity: int | None, oom: OutOfMemory | None) -> History:
    actions: list[Action] = []
    addresses: dict[int, int] = {}
    position = 0

    def segment(action: str, address: int, size: int) -> None:
        actions.append(Action(action, address, size, position))

    allocator = CachingAllocator(conf, capacity)
    allocator.on_segment = segment
    for position, event in enumerate(trace.events):
        block = abs(event) - 1
        if event == 0:
            allocator.empty_cache()
        elif event > 0:
            if oom is not None and position == oom.event:
                left = oom.capacity - oom.reserved
                actions.append(Action("oom", left, oom.requested, position, block))
            try:
                address = allocator.malloc(trace.blocks[block].nbytes)
            except OutOfMemory as error:
                error.event = position
                raise
            if address:
                addresses[block] = address
                size = allocator.block_size(address)
                actions.append(Action("alloc", address, size, position, block))
        else:
            address = addresses.pop(block, 0)
            if address:
                size = allocator.block_size(address)
                actions.append(Action("free", address, size, position, block))
                allocator.free(address)
    held = {address: block for block, address in addresses.items()}
    return History(actions, allocator.snapshot(), held)


def _cpu(trace: Trace) -> History:
    actions: list[Action] = []
    addresses: dict[int, int] = {}
    following = _FIRST_ADDRESS
    for position, event in enumerate(trace.events):
        block = abs(event) - 1
        size = trace.blocks[block].nbytes if event else 0
        if not size:
            continue
        if event > 0:
            addresses[block] = following
            actions.append(Action("segment_alloc", following, size, position))
            actions.append(Action("alloc", following, size, position, block))
            following += -(-size // _ALIGNMENT) * _ALIGNMENT
        else:
            address = addresses.pop(block)
            actions.append(Action("free", address, size, position, block))
            actions.append(Action("segment_free", address, size, position))
    return History(
        actions,
        list(_own_segments(trace, addresses)),
        {address: block for block, address in addresses.items()},
    )


def _own_segments(trace: Trace, addresses: dict[int, int]) -> Iterator[Segment]:
    for block, address in addresses.items():
        size = trace.blocks[block].nbytes
        yield Segment(
            address=address,
            size=size,
            large=True,
            expandable=False,
            blocks=(SegmentBlock(address, size, size, allocated=True),),
        )
