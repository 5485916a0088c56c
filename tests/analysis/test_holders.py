"""The groups of blocks at the peak: all of what is alive, whatever has no room for a name."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis import memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.trace import Block, Mark, Trace

blocks = st.builds(
    Block,
    nbytes=st.integers(1, 2**20),
    category=st.sampled_from(("activations", "gradients", "inputs")),
    op=st.sampled_from(("aten.mul", "aten.mm")),
    module=st.integers(0, 3).map("layers.{}.fc".format),
    shape=st.tuples(st.integers(1, 60)),
    dtype=st.just("float32"),
    phase=st.just("forward"),
    source=st.sampled_from(("m.py:1", "m.py:2")),
)


@given(st.lists(blocks, min_size=1, max_size=300), st.booleans())
def test_groups_hold_all_that_is_alive(held: list[Block], cuda: bool) -> None:
    trace = Trace(cuda=cuda, source="simulated", blocks=held)
    trace.events.extend(range(1, len(held) + 1))
    trace.marks.extend([Mark(0, "forward", 1), Mark(len(held), "end", 1)])
    found = memory.analyse(trace, memory.levels(trace, AllocConf(), None))
    named = [group for group in found.holders if group.op]
    rest = [group for group in found.holders if not group.op]
    assert len(named) <= memory.MOST_GROUPS
    assert (len(named) == memory.MOST_GROUPS) or not rest
    assert all(group.module == "layers.*.fc" for group in named)
    keys = {(one.category, one.op, one.source, str(one.shape)) for one in named}
    assert len(keys) == len(named)
    counts: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for group in found.holders:
        counts[group.category] += group.count
        nbytes[group.category] += group.bytes
    assert counts == Counter(block.category for block in held)
    assert nbytes == Counter({name: size for name, size in found.at_peak.items() if size})
    smallest = min(group.bytes for group in named)
    assert all(group.bytes <= group.count * smallest for group in rest)
