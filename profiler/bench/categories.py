"""What each block is for. Decided once the run is over, because a purpose shows in a lifetime.

Precedence, first that applies:

1. What the bench said: parameters, buffers, quantization state, inputs, workspaces; then
   `optimizer_state`, `gradients`, `kv_cache` by the object that holds the storage.
2. `logits_and_loss`: allocated after the output embedding ran (or by it), in the forward, or in the
   backward of such an op.
3. `temporaries`: freed in the phase of the forward that allocated it, in the same recomputation,
   in the same autograd node, or allocated by the optimizer phase and not kept as its state.
4. `activations`: allocated by a forward (recomputed or not) and alive after it.
5. `activation_gradients`: what is left of the backward.

Of what loading allocates (`profiler.bench.load`) the part that is freed again is `temporaries`;
what is kept and is none of the above is `buffers`.

A block has one category for its whole life: a buffer that ends as a parameter's `.grad` counts as
`gradients` from its allocation on.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from profiler.bench.tracker import UNDECIDED, StorageTracker


def decide(tracker: StorageTracker) -> None:
    """Set the category of every block that has none yet."""
    trace = tracker.trace
    never = len(trace.events)
    freed = [never] * len(trace.blocks)
    allocated = [0] * len(trace.blocks)
    for index, event in enumerate(trace.events):
        if event > 0:
            allocated[event - 1] = index
        elif event < 0:
            freed[-event - 1] = index
    forward_ends = _ends_of_forwards(tracker)
    for number, block in enumerate(trace.blocks):
        if block.category != UNDECIDED:
            continue
        origin = tracker.origins[number]
        if block.phase == "load":
            block.category = "buffers"
        elif origin.after_head:
            block.category = "logits_and_loss"
        elif block.phase == "optimizer":
            block.category = "temporaries"
        elif origin.recompute:
            end = tracker.recomputes[origin.recompute][1]
            block.category = "temporaries" if freed[number] < end else "activations"
        elif block.phase == "backward":
            block.category = "temporaries" if origin.freed_in_node else "activation_gradients"
        else:
            end = _next(forward_ends, allocated[number], never)
            block.category = "temporaries" if freed[number] < end else "activations"


def _ends_of_forwards(tracker: StorageTracker) -> list[int]:
    marks = tracker.trace.marks
    return [
        after.event
        for before, after in pairwise(marks)
        if before.phase == "forward" and after.phase != "forward"
    ]


def _next(ends: list[int], index: int, never: int) -> int:
    position = bisect_right(ends, index)
    return ends[position] if position < len(ends) else never
