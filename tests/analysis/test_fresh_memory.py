"""Memory that the system gives anew: mapped blocks each time, the heap's end once."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.fresh_memory import MAPPED, Heap, fresh_bytes
from profiler.trace import Block, Mark, Trace


def block(nbytes: int) -> Block:
    return Block(nbytes, "activations", "aten.add", "", (), "float32", "forward")


def steps(*sizes: int, count: int) -> Trace:
    """Steps that each allocate blocks of these sizes in the forward and free them in the
    backward."""
    trace = Trace(cuda=False, source="simulated")
    for step in range(count):
        trace.marks.append(Mark(len(trace.events), "forward", step))
        first = len(trace.blocks)
        for place, nbytes in enumerate(sizes):
            trace.blocks.append(block(nbytes))
            trace.events.append(first + place + 1)
        trace.marks.append(Mark(len(trace.events), "backward", step))
        trace.events.extend(array("q", [-(first + place + 1) for place in range(len(sizes))]))
    trace.marks.append(Mark(len(trace.events), "end", count - 1))
    return trace


def test_a_mapped_block_is_new_in_every_step() -> None:
    trace = steps(MAPPED, 1000, count=3)
    for step in (1, 2):
        assert fresh_bytes(trace, step) == {"forward": MAPPED, "backward": 0, "optimizer": 0}


def test_what_the_heap_held_before_is_not() -> None:
    trace = steps(1000, 5000, 2000, count=2)
    assert fresh_bytes(trace, 0)["forward"] >= 8000
    assert sum(fresh_bytes(trace, 1).values()) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), max_size=60))
def test_blocks_do_not_overlap_and_what_is_free_is_used(moves: list[tuple[bool, int]]) -> None:
    heap = Heap()
    held: dict[int, int] = {}
    for take, number in moves:
        if take or not held:
            start = heap.allocate(number)
            assert all(
                start + number <= other or other + size <= start for other, size in held.items()
            )
            held[start] = number
            assert start + number <= heap.size
        else:
            start = sorted(held)[number % len(held)]
            del held[start]
            heap.free(start)
    for start in held:
        heap.free(start)
    size = heap.size
    if size:
        heap.allocate(size)  # all of it is one free chunk again
    assert heap.size == size
