"""A run of steps through the allocator, pool by pool, on `compiled_pool`'s arrays.

The same bytes as `profiler.analysis.history` gives by itself; there is nothing to look up here,
because running a step again costs less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiler.analysis.compiled_pool import CompiledPool, Ints
from profiler.analysis.history import CudaRun, StepTrace
from profiler.analysis.pool_states import Apart, put_together
from profiler.analysis.pools import SMALL_UNITS, UNIT, FixedPool


@dataclass(slots=True)
class _State:
    """Two pools, and the blocks in use: address and size of each, 0 for one of no bytes."""

    small: CompiledPool
    large: CompiledPool
    addresses: Ints
    sizes: Ints

    def reserved(self) -> int:
        return (self.small.reserved + self.large.reserved) * UNIT

    def apart(self) -> Apart:
        return Apart(
            self.small.plain(), self.large.plain(), self.addresses.tolist(), self.sizes.tolist()
        )


class CompiledRun(CudaRun):
    """`CudaRun` on arrays, as long as its pools are of fixed segments."""

    state: _State | None = None

    def step(self, index: int, step: StepTrace) -> None:
        if self.state is None:
            super().step(index, step)
        elif not self._compiled_step(self.state, index, step):
            self.allocator, self.held = put_together(self.state.apart(), self.conf, self.capacity)
            self.apart = self.state = None
            super().step(index, step)

    def empty_cache(self) -> None:
        if self.state is not None:
            self.apart = self.state.apart()
        super().empty_cache()
        self._be_compiled()

    def _be_fast(self) -> None:
        super()._be_fast()
        self._be_compiled()

    def _be_compiled(self) -> None:
        apart, self.state = self.apart, None
        if (
            apart is not None
            and isinstance(apart.small, FixedPool)
            and isinstance(apart.large, FixedPool)
        ):
            self.state = _State(
                CompiledPool.of(apart.small),
                CompiledPool.of(apart.large),
                np.array(apart.addresses, dtype=np.int64),
                np.array(apart.sizes, dtype=np.int64),
            )

    def _compiled_step(self, state: _State, index: int, step: StepTrace) -> bool:
        """Run a step; False, and nothing done, if memory is short."""
        kind = step.kind
        assert kind.before == len(state.sizes)
        rounded, own_pools, own_units = self._round(index, step)
        before = state.sizes[list(kind.freed)]
        flags = ((before > 0) + (before > SMALL_UNITS).astype(np.uint8)).astype(np.uint8).tobytes()
        programs = self._programs.get((index, flags))
        if programs is None:
            programs = self._compile(kind, rounded, own_pools, flags)
            self._programs[index, flags] = programs
        addresses = np.concatenate((state.addresses, np.zeros(len(rounded), dtype=np.int64)))
        sizes = np.concatenate((state.sizes, own_units))
        small, grown = state.small.run(programs[0].array, addresses, sizes)
        large, more = state.large.run(programs[1].array, addresses, sizes)
        new = _State(small, large, addresses[kind.stays], sizes[kind.stays])
        reserved = new.reserved()
        if self.capacity is not None and reserved > self.capacity:
            return False

        def series() -> list[int]:
            growths = np.zeros(len(kind.events), dtype=np.int64)
            for block, growth in (*grown, *more):
                growths[kind.places[block]] += growth * UNIT
            return (state.reserved() + np.cumsum(growths)).tolist()

        self.state = new
        self.note(index, kind, sizes * UNIT, series, state.reserved())
        self.result.reserved.append(reserved)
        self.result.reserved_after.append(reserved)
        return True
