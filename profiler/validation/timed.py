"""`python -m profiler.validation.timed`: a cell's bare steps timed, for `profiler.validation.here`.

As `profiler.bench.child`, without the tracker, the profiler and their warm-up: only time is asked
for, of many cells, soon after one another. Steps are timed by the clock that a calibration used.
"""

from __future__ import annotations

import statistics
import sys

from profiler.record import Record
from profiler.spec import RunSpec

#: Steps before the first that is timed: the optimizer's state, malloc's thresholds and the
#: libraries' own caches are there then.
WARM_UP = 2


def measure(spec: RunSpec) -> Record:
    """Run a cell's steps in this process; `time` is of the median step, `time.elapsed` by the
    wall's clock."""
    from profiler.resolve import resolve

    cell = resolve(spec)

    import torch

    from profiler.bench.measured import import_all, prepare
    from profiler.calibration.timing import Phases, Stopwatch
    from profiler.environment import environment
    from profiler.record import Time

    torch.set_num_threads(torch.get_num_threads())  # as OMP_NUM_THREADS says, whatever is free
    watch = Stopwatch(threads=torch.get_num_threads(), least=0.0)
    import_all()
    _, step = prepare(cell)
    for _ in range(WARM_UP):
        step(Phases(watch))
    phases = Phases(watch)
    assert cell.spec.steps is not None
    for _ in range(cell.spec.steps):
        step(phases)
        phases.finish()
    found = {name: statistics.median(phases.seconds(name)) for name in phases.steps[0]}
    total = statistics.median([sum(one.values()) for one in phases.steps])
    tokens = spec.batch_size * spec.seq_len * spec.grad_accumulation
    time = Time(source="measured", step=total, phases=found, tokens_per_second=tokens / total)
    time.elapsed = statistics.median(phases.elapsed)  # type: ignore[attr-defined]
    return Record(
        id=cell.id,
        status="ok",
        source="measured",
        spec=cell.record_spec,
        time=time,
        environment=environment(cell.spec.device),
    )


if __name__ == "__main__":
    from profiler.bench import child

    sys.exit(child.main(measure))
