"""Runs of random steps, for tests of their replay."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from hypothesis import strategies as st

from profiler.analysis.history import StepHistory, StepKind, StepTrace
from profiler.trace import Block

MIB = 1 << 20

CONFS = (
    "",
    "expandable_segments:True",
    "large_segment_size_mb:32",
    "roundup_power2_divisions:4",
    "max_split_size_mb:20",
    "expandable_segments:True,large_segment_size_mb:12",
)

nbytes = st.one_of(
    st.sampled_from([0, 1, 512, 513, MIB, MIB + 1, 10 * MIB - 1, 10 * MIB, 24 * MIB]),
    st.integers(1, 2 * MIB),
    st.integers(MIB, 60 * MIB),
)


def block(size: int) -> Block:
    return Block(size, "activations", "aten.mm", "layers.0", (size,), "uint8", "backward")


@dataclass
class Long:
    """A run as one trace: its sizes and events, and where each step ends."""

    sizes: list[int]
    events: array[int]
    ends: list[int]


@st.composite
def runs(draw: st.DrawFn) -> tuple[StepHistory, Long]:
    """A few steps, each of which frees what the one before it left, in some order."""
    standing = draw(st.lists(nbytes, max_size=4))
    between = draw(st.integers(0, 3))
    before = len(standing) + between
    sizes = standing + [draw(nbytes) for _ in range(between)]
    first = array("q", range(1, before + 1))
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        own = draw(st.lists(nbytes, min_size=between + 1, max_size=10))
        held = list(range(len(standing), before))
        events: list[int] = []
        for number in range(len(own)):
            events.append(before + number + 1)
            held.append(before + number)
            for _ in range(draw(st.integers(0, 2))):
                if held:
                    at = draw(st.integers(0, len(held) - 1))
                    if len([one for one in held if one >= before]) > between or held[at] < before:
                        events.append(-1 - held.pop(at))
        while any(one < before for one in held) or len(held) > between:
            old = [one for one in held if one < before] or held
            one = draw(st.sampled_from(old))
            held.remove(one)
            events.append(-1 - one)
        left = tuple(sorted(one - before for one in held))
        while len(left) < between:  # too few are left: one of no bytes stays
            own.append(0)
            events.append(before + len(own))
            left = (*left, len(own) - 1)
        middle = draw(st.integers(0, len(events)))
        kind = StepKind(
            before=before,
            events=array("q", events),
            kept=tuple(range(len(standing))),
            left=left,
            marks=((0, "forward"), (middle, "backward")),
        )
        described = [block(size) for size in own]
        steps.append(StepTrace(kind, own, lambda described=described: described))  # type: ignore[misc]
    order = draw(st.lists(st.integers(0, len(steps) - 1), min_size=1, max_size=14))
    every = draw(st.integers(0, 3))
    history = StepHistory(
        cuda=True,
        blocks=[block(size) for size in sizes],
        events=first,
        steps=steps,
        order=order,
        empty_cache_every=every,
    )
    return history, flat(history)


def flat(history: StepHistory) -> Long:
    sizes = [one.nbytes for one in history.blocks]
    events = array("q", history.events)
    alive = list(range(len(sizes)))
    ends = []
    for number, index in enumerate(history.order, 1):
        step = history.steps[index]
        names = alive + list(range(len(sizes), len(sizes) + len(step.sizes)))
        sizes.extend(step.sizes)
        events.extend(
            names[event - 1] + 1 if event > 0 else -names[-event - 1] - 1
            for event in step.kind.events
        )
        ends.append(len(events))
        if history.empty_cache_every and number % history.empty_cache_every == 0:
            events.append(0)
        before = step.kind.before
        alive = [names[one] for one in step.kind.kept]
        alive += [names[before + one] for one in step.kind.left]
    return Long(sizes, events, ends)
