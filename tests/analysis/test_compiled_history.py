"""The compiled replay of a run gives what the plain one gives, in every figure."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_runs import CONFS, Long, runs

from profiler.analysis import history
from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.history import HistoryLevels, StepHistory, StepKind, StepTrace, levels
from profiler.analysis.pools import FixedPool

pytest.importorskip("numba", reason="numba is not installed (the extra `fast`)")


def both(run: StepHistory, conf: AllocConf, capacity: int | None) -> list[HistoryLevels]:
    found = []
    before = history._MANY_EVENTS
    try:
        for least in (1 << 62, 0):
            history._MANY_EVENTS = least
            found.append(levels(run, conf, capacity))
    finally:
        history._MANY_EVENTS = before
    return found


def check(plain: HistoryLevels, compiled: HistoryLevels) -> None:
    assert {**_fields(plain), "oom": None} == {**_fields(compiled), "oom": None}
    assert (plain.oom is None) == (compiled.oom is None)
    if plain.oom is not None and compiled.oom is not None:
        assert vars(plain.oom) == vars(compiled.oom)


def _fields(level: HistoryLevels) -> dict[str, object]:
    return {name: getattr(level, name) for name in HistoryLevels.__slots__}


@settings(max_examples=150, deadline=None)
@given(runs(), st.sampled_from(CONFS).map(AllocConf.parse), st.floats(0.2, 1.05))
def test_any_run_with_enough_memory_and_without(
    run: tuple[StepHistory, Long], conf: AllocConf, share: float
) -> None:
    plain, compiled = both(run[0], conf, None)
    check(plain, compiled)
    capacity = int(max(plain.reserved, default=0) * share)
    check(*both(run[0], conf, capacity))


@pytest.mark.parametrize("every", [0, 3])
def test_a_long_run_of_large_steps(every: int) -> None:
    """Thousands of blocks of all sizes, in two pools, with rests that are kept and merged."""
    draw = random.Random(3)
    steps = []
    for _ in range(4):
        events: list[int] = []
        alive: list[int] = []
        sizes: list[int] = []
        for _ in range(2000):
            if alive and draw.random() < 0.5:
                events.append(-(alive.pop(draw.randrange(len(alive))) + 1))
            else:
                sizes.append(draw.choice([0, 700, 2**19, 2**20 + 1, 3 * 2**20, 2**24, 2**26]))
                sizes[-1] += draw.randrange(2**20) if sizes[-1] else 0
                events.append(len(sizes))
                alive.append(len(sizes) - 1)
        events += [-(block + 1) for block in alive]
        kind = StepKind(0, array("q", events), (), (), ((0, "forward"),))
        steps.append(StepTrace(kind, sizes, list))
    order = [draw.randrange(4) for _ in range(40)]
    run = StepHistory(
        cuda=True,
        blocks=[],
        events=array("q"),
        steps=steps,
        order=order,
        empty_cache_every=every,
    )
    plain, compiled = both(run, AllocConf(), None)
    check(plain, compiled)
    assert len(set(plain.reserved)) > (3 if every else 1)
    check(*both(run, AllocConf(), int(max(plain.reserved) * 0.9)))


def test_a_pool_becomes_arrays_and_itself_again() -> None:
    from profiler.analysis.compiled_pool import CompiledPool

    pool = FixedPool(small=False, large_segment=40960)
    pool.run([1, 2, 3, -2], addresses=[0] * 3, sizes=[5000, 9000, 70000])
    again = CompiledPool.of(pool).plain()
    assert again.token() == pool.token()
    assert (again.starts, again.ends, again.next) == (pool.starts, pool.ends, pool.next)
