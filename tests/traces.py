"""Random traces: allocations and frees in an order that can be, phases and ops."""

from __future__ import annotations

from array import array

from hypothesis import strategies as st

from profiler.trace import CATEGORIES, Block, Mark, Op, Trace

NAMES = st.text(max_size=8)


@st.composite
def traces(draw: st.DrawFn, *, largest: int = 1 << 24, empties: bool = True) -> Trace:
    """A trace of some dozen blocks, in a warm-up and a step."""
    cuda = draw(st.booleans())
    trace = Trace(cuda=cuda, source=draw(st.sampled_from(("simulated", "measured"))))
    held: list[int] = []
    phases = [("setup", 0), ("forward", 0), ("backward", 0), ("optimizer", 0), ("forward", 1)]
    phases += [("backward", 1), ("optimizer", 1)]
    for phase, step in phases:
        if phase != "setup":
            trace.marks.append(Mark(len(trace.events), phase, step))
        for _ in range(draw(st.integers(1, 5))):
            choice = draw(st.integers(0, 9))
            if choice < 3 and held:
                trace.events.append(-(held.pop(draw(st.integers(0, len(held) - 1))) + 1))
            elif choice == 3 and empties:
                trace.events.append(0)
            else:
                held.append(len(trace.blocks))
                trace.blocks.append(draw(blocks(largest, phase)))
                trace.events.append(len(trace.blocks))
            if phase != "setup" and draw(st.booleans()):
                # A bench's own ops between two steps are of the phase before and the step after.
                late = draw(st.sampled_from((0, 0, 0, 1)))
                trace.ops.append(draw(ops(phase, step + late, len(trace.events))))
    trace.marks.append(Mark(len(trace.events), "end", 1))
    trace.outside = draw(st.dictionaries(NAMES, st.integers(0, 1 << 40), max_size=2))
    trace.approximations = draw(st.lists(NAMES, max_size=2))
    return trace


@st.composite
def blocks(draw: st.DrawFn, largest: int, phase: str) -> Block:
    return Block(
        nbytes=draw(st.integers(0, largest)),
        category=draw(st.sampled_from(CATEGORIES)),
        op=draw(NAMES),
        module=draw(st.sampled_from(("", "model", "model.layers.0.mlp", "model.layers.11.mlp"))),
        shape=tuple(draw(st.lists(st.integers(0, 1 << 33), max_size=3))),
        dtype=draw(st.sampled_from(("bfloat16", "float32"))),
        phase=phase,
        source=draw(st.sampled_from(("", "transformers/models/a.py:12", "odd"))),
    )


@st.composite
def ops(draw: st.DrawFn, phase: str, step: int, event: int) -> Op:
    return Op(
        name=draw(NAMES),
        phase=phase,
        module=draw(NAMES),
        step=step,
        flops=draw(st.integers(0, 1 << 62)),
        nbytes=draw(st.integers(0, 1 << 62)),
        dtype="bfloat16",
        recompute=draw(st.booleans()),
        event=event,
    )


def small() -> Trace:
    """One trace that has a row of each kind."""
    trace = Trace(cuda=True, source="simulated", events=array("q", [1, 2, -2]))
    for name in ("load", "aten.mm"):
        trace.blocks.append(Block(600, "activations", name, "model", (3, 100), "bfloat16", "setup"))
    trace.marks = [Mark(1, "forward", 1), Mark(3, "end", 1)]
    trace.ops = [Op("aten.mm", "forward", "model", 1, 12, 34, "bfloat16", False, 2)]
    return trace
