"""A whole run of steps through the allocator: what each step reserves, and where memory ends.

A run is made of few distinct steps, each simulated once and written so that it can follow any
other: blocks that were alive before it have numbers of their own. Replaying thousands of steps is
exact, not a model: the allocator's state goes from each step to the next. A state and a step that
were met before are looked up, and the two pools are replayed apart from each other as long as no
limit of memory joins them.
"""

from __future__ import annotations

import importlib.util
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from profiler.analysis.alloc_conf import UNLIMITED, AllocConf
from profiler.analysis.allocator import CachingAllocator, OutOfMemory, _Block
from profiler.analysis.memory import Levels
from profiler.analysis.pool_states import Apart, put_together, take_apart
from profiler.analysis.pools import SMALL_UNITS, UNIT, FixedPool, Pool
from profiler.trace import Block

Ints = npt.NDArray[np.int64]

#: States that are remembered at most of the small pool, and of the large one, which are larger
#: and come again less often. After half as many look-ups one in `_LEAST_USE` must have been found.
_MANY, _FEW = 4000, 600
_LEAST_USE = 10

#: A program, a pool's state, and where the blocks are that the program frees.
_Key = tuple[int, tuple[object, ...], tuple[tuple[int, int], ...]]

#: What came of it: the pool, its growth, the blocks that kept a rest, their sizes, and the places
#: of those that stay.
_Seen = tuple[Pool, list[tuple[int, int]], list[int], list[int], list[int]]


@dataclass(frozen=True)
class StepKind:
    """What happens in a step, whatever the sizes.

    Blocks have numbers: those alive before the step from 0 to `before` - 1, in the order in which
    they were allocated, then the step's own in that order.

    Attributes:
        before: number of blocks alive before the step.
        events: +(i + 1) allocates block i, -(i + 1) frees it.
        kept, left: the blocks alive after the step: those of before, then the step's own, counted
            from 0.
        marks: (event, phase) from which on the step is in a phase.
    """

    before: int
    events: array[int]
    kept: tuple[int, ...]
    left: tuple[int, ...]
    marks: tuple[tuple[int, str], ...]

    @cached_property
    def indices(self) -> Ints:
        """The block of each event."""
        return np.abs(np.asarray(self.events, dtype=np.int64)) - 1

    @cached_property
    def signs(self) -> Ints:
        """1 for each allocation, -1 for each free."""
        return np.sign(np.asarray(self.events, dtype=np.int64))

    @cached_property
    def stays(self) -> Ints:
        """The blocks alive after the step, numbered as in `events`."""
        left = (self.before + block for block in self.left)
        return np.array([*self.kept, *left], dtype=np.int64)

    @cached_property
    def staying(self) -> Callable[[list[int]], list[int]]:
        """Of a list by block, the entries of those alive after the step."""
        at = self.stays.tolist()
        if len(at) < 2:
            return lambda values: [values[one] for one in at]
        pick = itemgetter(*at)
        return lambda values: list(pick(values))

    @cached_property
    def freed(self) -> tuple[int, ...]:
        """The blocks of before that the step frees."""
        return tuple(-event - 1 for event in self.events if -self.before <= event < 0)

    @cached_property
    def places(self) -> dict[int, int]:
        """The event that allocates each block."""
        return {event - 1: place for place, event in enumerate(self.events) if event > 0}


@dataclass(frozen=True, eq=False)
class StepTrace:
    """A step of one shape: its kind, the bytes each of its own blocks asks for, and these blocks'
    descriptions, which are made only when they are asked for."""

    kind: StepKind
    sizes: Sequence[int]
    describe: Callable[[], list[Block]]


@dataclass(frozen=True, kw_only=True)
class StepHistory:
    """A run.

    Attributes:
        cuda: the bytes are a CUDA device's.
        blocks, events: what happens before the first step (as in `Trace`).
        steps: the distinct steps.
        order: the number in `steps` of each step that is run.
        empty_cache_every: the cache is emptied after each so many steps, 0 never.
    """

    cuda: bool
    blocks: list[Block]
    events: array[int]
    steps: list[StepTrace]
    order: list[int]
    empty_cache_every: int = 0


@dataclass(slots=True)
class PeakStep:
    """All that is known of one step's bytes.

    Attributes:
        number: of the step, the first is 1.
        origins: where each block alive before it comes from: (step in `StepHistory.steps`, its
            own block), or (-1, block) for what stood before the first step.
        sizes: bytes of the blocks, those of before first.
        allocated, reserved: after each event.
        allocated_before, reserved_before: before the first.
    """

    number: int
    origins: list[tuple[int, int]]
    sizes: list[int]
    allocated: list[int]
    reserved: list[int] | None
    allocated_before: int
    reserved_before: int


@dataclass(slots=True)
class HistoryLevels:
    """Bytes of each step of a run, in order; `reserved` is empty on a CPU.

    `peak` is the most allocated within the step, `after` what is allocated at its end, `reserved`
    the most reserved within it, `reserved_after` at its end, before any emptying of the cache.
    `phases` are the largest of all steps, `peak_step` is the first that reaches the peak, `before`
    are the levels of what comes before the first. `oom` is the request that failed, in step number
    `oom_step`, `oom.event` counted in that step (step 0: in what comes before the first).
    """

    peak: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    reserved_after: list[int] = field(default_factory=list)
    phases: dict[str, int] = field(default_factory=dict)
    peak_step: PeakStep | None = None
    before: Levels | None = None
    oom: OutOfMemory | None = None
    oom_step: int = 0


def levels(
    history: StepHistory,
    conf: AllocConf,
    capacity: int | None,
    *,
    only_if_it_fits: bool = False,
) -> HistoryLevels:
    """Replay a run.

    Where `capacity` does not hold it, the levels are those of a card that is large enough, and
    `oom` says where it would have ended; with `only_if_it_fits` they end there.
    """
    if not history.cuda:
        return _Cpu(history).run()
    kind = _quickest(history)
    result = kind(history, conf, capacity).run()
    if result.oom is not None and not only_if_it_fits:
        oom, step = result.oom, result.oom_step
        result = kind(history, conf, None).run()
        result.oom, result.oom_step = oom, step
    return result


#: From so many events on, what numba takes to begin is less than what it saves.
_MANY_EVENTS = 1_000_000


def _quickest(history: StepHistory) -> type[CudaRun]:
    """How a run is replayed; the bytes are the same."""
    events = sum(len(history.steps[index].kind.events) for index in history.order)
    if events < _MANY_EVENTS or importlib.util.find_spec("numba") is None:
        return CudaRun
    from profiler.analysis.compiled_history import CompiledRun

    return CompiledRun


#: Where a block is served: nowhere, if it has no bytes.
_NOWHERE, _SMALL, _LARGE = range(3)


def _pool_of(units: int) -> int:
    return _NOWHERE if not units else _LARGE if units > SMALL_UNITS else _SMALL


class _Run:
    """The steps one after the other; what an allocator does comes from the subclass."""

    def __init__(self, history: StepHistory) -> None:
        self.history = history
        self.result = HistoryLevels()
        self.allocated = 0
        self.origins: list[tuple[int, int]] = []
        self.highest = -1

    def run(self) -> HistoryLevels:
        every = self.history.empty_cache_every
        try:
            self.begin()
            for number, index in enumerate(self.history.order, 1):
                self.number = number
                self.step(index, self.history.steps[index])
                if every and number % every == 0:
                    self.empty_cache()
        except OutOfMemory as error:
            self.result.oom = error
        return self.result

    def begin(self) -> None:
        raise NotImplementedError

    def step(self, index: int, step: StepTrace) -> None:
        raise NotImplementedError

    def empty_cache(self) -> None:
        """Gives back what is wholly free."""

    def alive(self) -> list[int]:
        """Blocks alive before the first step."""
        held: dict[int, None] = {}
        for event in self.history.events:
            if event > 0:
                held[event - 1] = None
            elif event < 0:
                del held[-event - 1]
        self.origins = [(-1, block) for block in held]
        return list(held)

    def note(
        self,
        index: int,
        kind: StepKind,
        sizes: Ints,
        reserved: Callable[[], list[int]] | None,
        reserved_before: int,
    ) -> None:
        """Takes down a step whose blocks have these sizes in bytes."""
        result = self.result
        before = self.allocated
        series = before + np.cumsum(kind.signs * sizes[kind.indices])
        peak = max(before, int(series.max(initial=0)))
        last = len(series)
        for (start, phase), (end, _) in zip(kind.marks, (*kind.marks[1:], (last, "")), strict=True):
            level = before if start == 0 else int(series[start - 1])
            if end > start:
                level = max(level, int(series[start:end].max()))
            result.phases[phase] = max(result.phases.get(phase, 0), level)
        if peak > self.highest:
            self.highest = peak
            result.peak_step = PeakStep(
                number=self.number,
                origins=self.origins,
                sizes=sizes.tolist(),
                allocated=series.tolist(),
                reserved=reserved() if reserved is not None else None,
                allocated_before=before,
                reserved_before=reserved_before,
            )
        self.allocated = int(series[-1]) if last else before
        result.peak.append(peak)
        result.after.append(self.allocated)
        self.origins = [self.origins[at] for at in kind.kept] + [
            (index, block) for block in kind.left
        ]


class _Cpu(_Run):
    """A block is as large as its storage."""

    def begin(self) -> None:
        sizes = [block.nbytes for block in self.history.blocks]
        steps = [
            sizes[event - 1] if event > 0 else -sizes[-event - 1] if event else 0
            for event in self.history.events
        ]
        self.result.before = Levels(list(accumulate(steps)), None, sizes, None)
        self.sizes = [sizes[block] for block in self.alive()]
        self.allocated = sum(self.sizes)

    def step(self, index: int, step: StepTrace) -> None:
        kind = step.kind
        assert len(self.sizes) == kind.before
        sizes = self.sizes + list(step.sizes)
        self.note(index, kind, np.asarray(sizes, dtype=np.int64), None, 0)
        self.sizes = [sizes[at] for at in kind.kept] + [step.sizes[at] for at in kind.left]


@dataclass
class _Program:
    """The events of one pool in one step, after a step that left it these pools' blocks."""

    events: list[int]
    number: int  # equal for equal events on equal sizes
    freed: list[int]  # blocks of before
    left: list[int]  # blocks that stay, of the step's own

    @cached_property
    def array(self) -> Ints:
        return np.array(self.events, dtype=np.int64)


class _Memory:
    """What was met before; given up where nothing comes again."""

    def __init__(self, most: int) -> None:
        self.seen: dict[_Key, _Seen] = {}
        self.worth = True
        self._most = most
        self._asked = 0
        self._found = 0

    def look_up(self, key: _Key) -> _Seen | None:
        if len(self.seen) >= self._most:
            self.seen.clear()
        found = self.seen.get(key)
        self._asked += 1
        self._found += found is not None
        if self._asked >= self._most // 2:
            self.worth = self._found * _LEAST_USE >= self._asked
            if not self.worth:
                self.seen.clear()
            self._asked = self._found = 0
        return found


class CudaRun(_Run):
    """The caching allocator.

    Each pool runs by itself (`profiler.analysis.pools`), and the allocator as a whole where
    memory is short, or under settings that the pools do not know.
    """

    def __init__(self, history: StepHistory, conf: AllocConf, capacity: int | None) -> None:
        super().__init__(history)
        self.conf = conf
        self.capacity = capacity
        self.allocator = CachingAllocator(conf, capacity)
        #: Settings that `pools` knows.
        self.plain = (
            conf.max_split_size == UNLIMITED
            and not conf.garbage_collection_threshold
            and conf.per_process_memory_fraction >= 1.0
            and not (conf.expandable_segments and history.empty_cache_every)
        )
        self.held: list[_Block | None] = []
        self.apart: Apart | None = None
        self._rounded: dict[int, tuple[list[int], bytes, Ints]] = {}
        self.units = np.zeros(0, dtype=np.int64)  # `apart.sizes`
        self._programs: dict[tuple[int, bytes], tuple[_Program, _Program]] = {}
        self._numbers: dict[object, int] = {}
        self._memories = (_Memory(_MANY), _Memory(_FEW))

    def begin(self) -> None:
        self.number = 0
        allocator = self.allocator
        sizes = [block.nbytes for block in self.history.blocks]
        held: dict[int, _Block | None] = {}
        allocated: list[int] = []
        reserved: list[int] = []
        taken = [0] * len(sizes)
        for position, event in enumerate(self.history.events):
            if event > 0:
                size = sizes[event - 1]
                try:
                    new = allocator._allocate(size) if size else None
                except OutOfMemory as error:
                    error.event = position
                    raise
                held[event - 1] = new
                taken[event - 1] = new.size if new is not None else 0
            elif event < 0:
                block = held.pop(-event - 1)
                if block is not None:
                    allocator._free(block)
            else:
                allocator.empty_cache()
            allocated.append(allocator.allocated)
            reserved.append(allocator.reserved)
        self.result.before = Levels(allocated, reserved, taken, None)
        self.held = [held[block] for block in self.alive()]
        self.allocated = allocator.allocated
        self._be_fast()

    def step(self, index: int, step: StepTrace) -> None:
        apart = self.apart
        if apart is not None:
            assert step.kind.before == len(apart.sizes)
            if self._fast_step(apart, index, step):
                return
            self._be_exact()
        assert step.kind.before == len(self.held)
        self._exact_step(index, step)
        self._be_fast()

    def empty_cache(self) -> None:
        apart = self.apart
        if apart is None:
            self.allocator.empty_cache()
            self._be_fast()
            return
        assert isinstance(apart.small, FixedPool)
        assert isinstance(apart.large, FixedPool)  # `plain` says so
        (small, in_small), (large, in_large) = apart.small.emptied(), apart.large.emptied()
        moves = (int, in_small, in_large)
        addresses = [
            moves[_pool_of(size)](address)
            for address, size in zip(apart.addresses, apart.sizes, strict=True)
        ]
        self.apart = Apart(small, large, addresses, apart.sizes)

    # --- the pools apart ------------------------------------------------------------------------

    def _fast_step(self, apart: Apart, index: int, step: StepTrace) -> bool:
        """Run a step pool by pool; False, and nothing done, if memory is short."""
        kind = step.kind
        rounded, own_pools, own_units = self._round(index, step)
        flags = bytes([_pool_of(apart.sizes[block]) for block in kind.freed])
        programs = self._programs.get((index, flags))
        if programs is None:
            programs = self._compile(kind, rounded, own_pools, flags)
            self._programs[index, flags] = programs
        addresses = apart.addresses + [0] * len(rounded)
        sizes = apart.sizes + rounded
        units = np.concatenate((self.units, own_units))
        grown: list[tuple[int, int]] = []
        pools: list[Pool] = []
        for which, pool in enumerate((apart.small, apart.large)):
            after, more, whole, now, _ = self._run_pool(
                pool, which, programs[which], addresses, sizes
            )
            pools.append(after)
            grown += more
            units[whole] = now
        new = Apart(pools[0], pools[1], kind.staying(addresses), kind.staying(sizes))
        reserved = new.reserved()
        if self.capacity is not None and reserved > self.capacity:
            return False

        def series() -> list[int]:
            growths = np.zeros(len(kind.events), dtype=np.int64)
            for block, growth in grown:
                growths[kind.places[block]] += growth * UNIT
            return (apart.reserved() + np.cumsum(growths)).tolist()

        self.apart = new
        self.units = units[kind.stays]
        self.note(index, kind, units * UNIT, series, apart.reserved())
        self.result.reserved.append(reserved)
        self.result.reserved_after.append(reserved)
        return True

    def _run_pool(
        self, pool: Pool, which: int, program: _Program, addresses: list[int], sizes: list[int]
    ) -> _Seen:
        """The pool after a program; what it makes of an equal state is looked up."""
        memory = self._memories[which]
        key = None
        if memory.worth:
            blocks = tuple([(addresses[block], sizes[block]) for block in program.freed])
            key = (program.number, pool.token(), blocks)
            found = memory.look_up(key)
            if found is not None:
                _, _, whole, now, places = found
                for block, size in zip(whole, now, strict=True):
                    sizes[block] = size
                for block, address in zip(program.left, places, strict=True):
                    addresses[block] = address
                return found
        after = pool.copy()
        grown, whole = after.run(program.events, addresses, sizes)
        now = [sizes[block] for block in whole]
        places = [addresses[block] for block in program.left]
        result = (after, grown, whole, now, places)
        if key is not None:
            memory.seen[key] = result
        return result

    def _number(self, content: object) -> int:
        return self._numbers.setdefault(content, len(self._numbers))

    def _round(self, index: int, step: StepTrace) -> tuple[list[int], bytes, Ints]:
        """Sizes of a step's own blocks in units, and each one's pool; the sizes again."""
        found = self._rounded.get(index)
        if found is None:
            rounding = self.allocator._round
            known = {size: rounding(size) // UNIT if size else 0 for size in set(step.sizes)}
            rounded = [known[size] for size in step.sizes]
            pools = bytes([_pool_of(size) for size in rounded])
            found = rounded, pools, np.array(rounded, dtype=np.int64)
            self._rounded[index] = found
        return found

    def _compile(
        self, kind: StepKind, rounded: list[int], own_pools: bytes, pools_before: bytes
    ) -> tuple[_Program, _Program]:
        base = kind.before
        of_before = dict(zip(kind.freed, pools_before, strict=True))
        events: tuple[list[int], list[int], list[int]] = ([], [], [])
        for event in kind.events:
            block = abs(event) - 1
            pool = own_pools[block - base] if block >= base else of_before[block]
            events[pool].append(event)
        programs = []
        for which in (_SMALL, _LARGE):
            own = events[which]
            asked = tuple(rounded[event - 1 - base] for event in own if event > 0)
            programs.append(
                _Program(
                    events=own,
                    number=self._number((tuple(own), asked)),
                    freed=[-event - 1 for event in own if -base <= event < 0],
                    left=[base + block for block in kind.left if own_pools[block] == which],
                )
            )
        return programs[0], programs[1]

    # --- the allocator itself -------------------------------------------------------------------

    def _exact_step(self, index: int, step: StepTrace) -> None:
        kind = step.kind
        allocator = self.allocator
        allocate, free = allocator._allocate, allocator._free
        base = kind.before
        held = self.held + [None] * len(step.sizes)
        reserved_before = allocator.reserved
        sizes = np.zeros(len(held), dtype=np.int64)
        for block, one in enumerate(self.held):
            sizes[block] = one.size if one is not None else 0
        reserved: list[int] = []
        for position, event in enumerate(kind.events):
            if event > 0:
                size = step.sizes[event - 1 - base]
                if size:
                    try:
                        new = allocate(size)
                    except OutOfMemory as error:
                        error.event = position
                        self.result.oom_step = self.number
                        raise
                    held[event - 1] = new
                    sizes[event - 1] = new.size
            else:
                old = held[-event - 1]
                if old is not None:
                    free(old)
            reserved.append(allocator.reserved)
        self.note(index, kind, sizes, lambda: reserved, reserved_before)
        self.result.reserved.append(max(reserved, default=reserved_before))
        self.result.reserved_after.append(allocator.reserved)
        self.held = [held[at] for at in kind.kept] + [held[base + at] for at in kind.left]

    def _be_fast(self) -> None:
        """Go on pool by pool from the allocator's state, if `pools` can."""
        if not self.plain:
            return
        self.apart = take_apart(self.allocator, self.held)
        self.plain = self.apart is not None
        if self.apart is not None:
            self.units = np.array(self.apart.sizes, dtype=np.int64)

    def _be_exact(self) -> None:
        assert self.apart is not None
        self.allocator, self.held = put_together(self.apart, self.conf, self.capacity)
        self.apart = None
