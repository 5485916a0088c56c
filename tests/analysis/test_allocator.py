"""Properties of the allocator's replay on random traces, and the rules PyTorch documents."""

from __future__ import annotations

import pickle
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.allocator import (
    AllocConf,
    CachingAllocator,
    OutOfMemory,
    Segment,
    replay,
)

KIB, MIB = 1 << 10, 1 << 20

CONFS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:20",
    "roundup_power2_divisions:[1:4,16:8,>:2]",
    "large_segment_size_mb:12",
    "expandable_segments:True,large_segment_size_mb:32,roundup_power2_divisions:8",
    "per_process_memory_fraction:0.8,garbage_collection_threshold:0.4",
)

nbytes = st.one_of(
    st.sampled_from([0, 1, 511, 512, 513, MIB, MIB + 1, 10 * MIB - 1, 10 * MIB, 24 * MIB]),
    st.integers(1, 2 * MIB),
    st.integers(MIB, 80 * MIB),
)
#: A size is allocated, a number frees one of the blocks then held, None empties the cache.
steps = st.lists(
    st.one_of(nbytes.map(lambda n: ("malloc", n)), st.integers(0, 50).map(lambda n: ("free", n)))
    | st.just(("empty", 0)),
    max_size=60,
)
confs = st.sampled_from(CONFS).map(AllocConf.parse)
capacities = st.one_of(st.none(), st.integers(1 * MIB, 400 * MIB))


def attempt(allocator: CachingAllocator, number: int) -> tuple[int, OutOfMemory | None]:
    """The address for `number` bytes, or 0 and the error."""
    try:
        return allocator.malloc(number), None
    except OutOfMemory as error:
        return 0, error


def run(allocator: CachingAllocator, todo: list[tuple[str, int]]) -> dict[int, int]:
    """Does `todo` and checks the state after each step; the requests by address that remain."""
    held: dict[int, int] = {}
    for action, number in todo:
        if action == "malloc":
            address, _ = attempt(allocator, number)
            if address:
                assert address not in held
                held[address] = number
        elif action == "free" and held:
            address = list(held)[number % len(held)]
            del held[address]
            allocator.free(address)
        elif action == "empty":
            allocator.empty_cache()
        check(allocator, held)
    return held


def check(allocator: CachingAllocator, held: dict[int, int]) -> None:
    segments = allocator.snapshot()
    for one, other in pairwise(segments):
        assert one.address + one.size <= other.address
    for segment in segments:
        position = segment.address
        for block in segment.blocks:
            assert block.address == position
            assert block.size > 0
            assert block.size % 512 == 0
            assert block.allocated == (block.address in held)
            assert block.requested == held.get(block.address, 0) <= block.size
            position += block.size
        assert position == segment.address + segment.size
        for left, right in pairwise(segment.blocks):
            assert left.allocated or right.allocated, "free neighbours are merged"
    blocks = [block for segment in segments for block in segment.blocks]
    assert allocator.reserved == sum(segment.size for segment in segments)
    assert allocator.allocated == sum(block.size for block in blocks if block.allocated)
    assert allocator.requested == sum(held.values())
    assert allocator.requested <= allocator.allocated <= allocator.reserved
    assert allocator.capacity is None or allocator.reserved <= allocator.capacity
    assert allocator.inactive_split == sum(
        block.size
        for segment in segments
        for block in segment.blocks
        if not block.allocated and len(segment.blocks) > 1 and not segment.expandable
    )


@given(confs, capacities, steps)
def test_blocks_tile_segments_and_the_counters_add_up(
    conf: AllocConf, capacity: int | None, todo: list[tuple[str, int]]
) -> None:
    allocator = CachingAllocator(conf, capacity)
    for address in run(allocator, todo):
        allocator.free(address)
    assert allocator.allocated == allocator.requested == allocator.inactive_split == 0
    allocator.empty_cache()
    assert allocator.reserved == 0
    assert allocator.snapshot() == []


@given(steps, nbytes.filter(bool))
def test_the_smallest_free_block_that_fits_is_taken(
    todo: list[tuple[str, int]], request: int
) -> None:
    allocator = CachingAllocator()
    run(allocator, todo)
    before = allocator.reserved
    size = -(-request // 512) * 512
    fits = [
        (block.size, block.address)
        for segment in allocator.snapshot()
        for block in segment.blocks
        if segment.large == (size > MIB) and not block.allocated and block.size >= size
    ]
    address = allocator.malloc(request)
    if fits:
        assert address == min(fits)[1]
        assert allocator.reserved == before
    else:
        assert allocator.reserved > before


@st.composite
def traces(draw: st.DrawFn) -> tuple[list[int], array[int]]:
    """Sizes and events in which every block is allocated once and freed at most once."""
    sizes = draw(st.lists(nbytes, max_size=40))
    events: list[int] = []
    held: list[int] = []
    for index in range(len(sizes)):
        events.append(index + 1)
        held.append(index)
        for _ in range(draw(st.integers(0, 2))):
            if held:
                events.append(-1 - held.pop(draw(st.integers(0, len(held) - 1))))
        if draw(st.integers(0, 9)) == 0:
            events.append(0)
    return sizes, array("q", events)


@given(traces(), confs, capacities)
def test_a_replay_is_what_the_allocator_does_step_by_step(
    trace: tuple[list[int], array[int]], conf: AllocConf, capacity: int | None
) -> None:
    sizes, events = trace
    result = replay(sizes, events, conf=conf, capacity=capacity)
    allocator = CachingAllocator(conf, capacity)
    addresses: dict[int, int] = {}
    for position, event in enumerate(events):
        if event > 0:
            addresses[event], error = attempt(allocator, sizes[event - 1])
            if error is not None:
                assert vars(result.oom) == {**vars(error), "event": position}
                assert len(result.allocated) == len(result.reserved) == position
                return
            assert result.block_bytes[event - 1] == allocator.block_size(addresses[event])
        elif event < 0:
            allocator.free(addresses.pop(-event))
        else:
            allocator.empty_cache()
        assert result.allocated[position] == allocator.allocated
        assert result.reserved[position] == allocator.reserved
    assert result.oom is None
    assert len(result.allocated) == len(result.reserved) == len(events)


@given(traces(), confs, capacities)
def test_a_replay_is_deterministic(
    trace: tuple[list[int], array[int]], conf: AllocConf, capacity: int | None
) -> None:
    first, second = (replay(*trace, conf=conf, capacity=capacity) for _ in range(2))
    assert (first.allocated, first.reserved) == (second.allocated, second.reserved)
    assert first.block_bytes == second.block_bytes


def blocks_of(segment: Segment) -> list[int]:
    return [block.size for block in segment.blocks]


@pytest.mark.parametrize(
    ("request_bytes", "segment", "blocks"),
    [
        (1, 2 * MIB, [512, 2 * MIB - 512]),
        (513, 2 * MIB, [1024, 2 * MIB - 1024]),
        (MIB, 2 * MIB, [MIB, MIB]),
        (MIB + 1, 20 * MIB, [MIB + 512, 19 * MIB - 512]),
        (10 * MIB - 512, 20 * MIB, [10 * MIB - 512, 10 * MIB + 512]),
        (10 * MIB - 1, 10 * MIB, [10 * MIB]),  # rounded before it is looked up
        (10 * MIB, 10 * MIB, [10 * MIB]),
        (11 * MIB, 12 * MIB, [12 * MIB]),  # a rest of 1 MiB stays with the block
        (11 * MIB - 512, 12 * MIB, [11 * MIB - 512, MIB + 512]),
    ],
)
def test_first_request_of_a_size(request_bytes: int, segment: int, blocks: list[int]) -> None:
    allocator = CachingAllocator()
    address = allocator.malloc(request_bytes)
    (only,) = allocator.snapshot()
    assert only.size == allocator.reserved == segment
    assert blocks_of(only) == blocks
    assert allocator.block_size(address) == allocator.allocated == blocks[0]
    assert allocator.requested == request_bytes


def test_small_and_large_requests_never_share_a_segment() -> None:
    allocator = CachingAllocator()
    allocator.malloc(2 * MIB)  # leaves 18 MiB free in the large pool
    allocator.malloc(KIB)
    assert {(segment.large, segment.size) for segment in allocator.snapshot()} == {
        (True, 20 * MIB),
        (False, 2 * MIB),
    }


def test_the_small_pool_splits_off_as_little_as_one_block() -> None:
    allocator = CachingAllocator()
    allocator.malloc(MIB)
    assert allocator.block_size(allocator.malloc(MIB - 512)) == MIB - 512


def test_nothing_is_taken_for_no_bytes() -> None:
    allocator = CachingAllocator(capacity=0)
    assert allocator.malloc(0) == 0
    allocator.free(0)
    assert allocator.block_size(0) == allocator.reserved == allocator.allocated == 0
    assert list(replay([0], array("q", [1, -1])).block_bytes) == [0]


def test_misuse_is_refused() -> None:
    allocator = CachingAllocator()
    address = allocator.malloc(1)
    allocator.free(address)
    with pytest.raises(ValueError, match="no block in use"):
        allocator.free(address)
    with pytest.raises(ValueError, match="-1"):
        allocator.malloc(-1)


@pytest.mark.parametrize("events", [[1, 1], [-1], [1, -1, -1], [2], [0, -1]])
def test_a_trace_that_makes_no_sense_is_refused(events: list[int]) -> None:
    with pytest.raises(ValueError, match="event"):
        replay([512], array("q", events))


def test_cached_segments_are_given_back_before_memory_runs_out() -> None:
    allocator = CachingAllocator(capacity=100 * MIB)
    allocator.free(allocator.malloc(60 * MIB))
    assert allocator.reserved == 60 * MIB
    allocator.malloc(80 * MIB)
    assert allocator.reserved == 80 * MIB


def test_a_segment_partly_in_use_cannot_be_given_back() -> None:
    allocator = CachingAllocator(capacity=100 * MIB)
    whole = allocator.malloc(60 * MIB)
    allocator.free(whole)
    allocator.malloc(2 * MIB)  # cut from the 60 MiB
    with pytest.raises(OutOfMemory) as caught:
        allocator.malloc(80 * MIB + 1)
    error = caught.value
    assert (error.requested, error.segment) == (80 * MIB + 1, 82 * MIB)
    assert (error.allocated, error.reserved) == (2 * MIB, 60 * MIB)
    assert (error.capacity, error.event) == (100 * MIB, -1)
    assert allocator.inactive_split == 58 * MIB
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_replay_ends_where_memory_runs_out() -> None:
    events = array("q", [1, 2, -1, 3, -2])
    result = replay([30 * MIB, 30 * MIB, 50 * MIB], events, capacity=64 * MIB)
    assert result.oom is not None
    assert (result.oom.event, result.oom.requested) == (3, 50 * MIB)
    assert result.oom.reserved == 30 * MIB, "the freed segment was given back"
    assert list(result.reserved) == [30 * MIB, 60 * MIB, 60 * MIB]
    assert list(result.allocated) == [30 * MIB, 60 * MIB, 30 * MIB]
    assert list(result.block_bytes) == [30 * MIB, 30 * MIB, 0]


class TestOptions:
    def test_expandable_segments_grow_by_pages_and_reuse_their_end(self) -> None:
        allocator = CachingAllocator(AllocConf(expandable_segments=True))
        first = allocator.malloc(25 * MIB)
        assert allocator.reserved == 40 * MIB, "two pages of 20 MiB"
        second = allocator.malloc(25 * MIB)
        assert (second - first, allocator.reserved) == (25 * MIB, 60 * MIB)
        allocator.malloc(1)
        assert allocator.reserved == 62 * MIB, "a page of 2 MiB for the small pool"
        assert [segment.expandable for segment in allocator.snapshot()] == [True, True]
        allocator.free(second)
        allocator.empty_cache()
        assert allocator.reserved == 42 * MIB, "only pages that are wholly free go back"

    def test_expandable_segments_keep_the_growing_end_for_last(self) -> None:
        allocator = CachingAllocator(AllocConf(expandable_segments=True))
        allocator.malloc(5 * MIB)
        gap = allocator.malloc(6 * MIB)
        allocator.malloc(5 * MIB)  # 4 MiB are left at the end
        allocator.free(gap)
        assert allocator.malloc(3 * MIB) == gap

    def test_expandable_segments_fit_where_fixed_ones_are_too_fragmented(self) -> None:
        sizes = [40 * MIB] * 3 + [100 * MIB]
        events = array("q", [1, 2, 3, -1, -3, 4])
        assert replay(sizes, events, capacity=160 * MIB).oom is None
        sizes.insert(3, 2 * MIB)
        events = array("q", [1, 2, 3, -1, -3, 4, 5])  # 2 MiB are cut from a freed segment
        fixed = replay(sizes, events, capacity=160 * MIB)
        grown = replay(sizes, events, conf=AllocConf(expandable_segments=True), capacity=160 * MIB)
        assert fixed.oom is not None
        assert grown.oom is None

    def test_max_split_size_keeps_large_blocks_whole(self) -> None:
        conf = AllocConf.parse("max_split_size_mb:40")
        allocator = CachingAllocator(conf)
        allocator.free(allocator.malloc(40 * MIB))
        allocator.malloc(30 * MIB)
        assert allocator.reserved == 70 * MIB, "a smaller request does not get the large block"
        allocator.free(allocator.malloc(100 * MIB))
        allocator.malloc(80 * MIB)
        assert allocator.reserved == 250 * MIB, "nor one that is 20 MiB smaller or more"
        address = allocator.malloc(82 * MIB)
        assert allocator.reserved == 250 * MIB
        assert allocator.block_size(address) == 100 * MIB, "the rest is not split off"

    def test_max_split_size_gives_back_large_blocks_first(self) -> None:
        allocator = CachingAllocator(AllocConf.parse("max_split_size_mb:40"), capacity=150 * MIB)
        kept = allocator.malloc(20 * MIB)
        large = allocator.malloc(100 * MIB)
        allocator.free(kept)
        allocator.free(large)
        allocator.malloc(50 * MIB)
        assert allocator.reserved == 70 * MIB, "the 20 MiB segment stays cached"

    @given(st.integers(1, 8 * MIB), st.sampled_from([2, 4, 16]))
    def test_roundup_divides_each_power_of_two(self, request_bytes: int, divisions: int) -> None:
        allocator = CachingAllocator(AllocConf.parse(f"roundup_power2_divisions:{divisions}"))
        size = allocator.block_size(allocator.malloc(request_bytes))
        if request_bytes <= 512 * divisions:
            assert size == -(-request_bytes // 512) * 512
        else:
            floor = 1 << (request_bytes.bit_length() - 1)
            steps = [floor + step * floor // divisions for step in range(divisions + 1)]
            assert size == min(step for step in steps if step >= request_bytes)

    def test_roundup_may_differ_between_powers_of_two(self) -> None:
        allocator = CachingAllocator(AllocConf.parse("roundup_power2_divisions:[2:4,>:0]"))
        assert allocator.block_size(allocator.malloc(2 * MIB + 1)) == 2 * MIB + 512 * KIB
        assert allocator.block_size(allocator.malloc(4 * MIB + 1)) == 4 * MIB + 512

    def test_large_segment_size(self) -> None:
        allocator = CachingAllocator(AllocConf.parse("large_segment_size_mb:64"))
        allocator.malloc(2 * MIB)
        assert allocator.reserved == 64 * MIB

    def test_memory_fraction_limits_what_is_reserved(self) -> None:
        conf = AllocConf.parse("per_process_memory_fraction:0.5")
        allocator = CachingAllocator(conf, capacity=190 * MIB, total=200 * MIB)
        allocator.malloc(60 * MIB)
        with pytest.raises(OutOfMemory) as caught:
            allocator.malloc(60 * MIB)
        assert caught.value.capacity == 100 * MIB

    @pytest.mark.parametrize("fraction", [0.9, 1.0])
    def test_garbage_collection_needs_a_memory_fraction(self, fraction: float) -> None:
        conf = AllocConf(garbage_collection_threshold=0.1, per_process_memory_fraction=fraction)
        allocator = CachingAllocator(conf, capacity=1000 * MIB)
        for size in (100, 120, 140):
            allocator.free(allocator.malloc(size * MIB))
        assert allocator.reserved == (140 * MIB if fraction < 1 else 360 * MIB)
