"""A run put together from few simulated steps is the run simulated step by step, to the byte."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from invariants import check_invariants
from tiny import fitted, write

from profiler.analysis import history as runs
from profiler.analysis import memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench.history import History, batch_of, simulate_history
from profiler.bench.load import Load
from profiler.bench.simulated import Feed, simulate
from profiler.errors import UnsupportedError, UsageError
from profiler.execute import run
from profiler.hardware import devices
from profiler.record import Record
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build
from profiler.trace import Trace


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def spec_of(folder: Path, lengths: Sequence[int], **fields: Any) -> RunSpec:
    path = folder / "lengths.txt"
    path.write_text("\n".join(map(str, lengths)))
    fields = {"stack": "script", "device": "l40s", "batch_size": 2, **fields}
    return RunSpec(lengths=str(path), **fields)


def resolved(spec: RunSpec) -> Cell:
    cell = resolve(spec)
    if cell.unsupported:
        pytest.skip(cell.unsupported)
    return cell


def composed(cell: Cell) -> History:
    device = None if cell.spec.device == "sim:cpu" else devices.device(cell.spec.device)
    load = None if device is None else Load.of(cell.spec, device)
    assert cell.history is not None
    return simulate_history(build(cell, load=load), cell.spec, device, load, cell.history)


def genuine(cell: Cell) -> Trace:
    """Every batch in order, each step really simulated."""
    import torch

    device = None if cell.spec.device == "sim:cpu" else devices.device(cell.spec.device)
    load = None if device is None else Load.of(cell.spec, device)
    subject = build(cell, load=load)
    history = cell.history
    assert history is not None
    generator = torch.Generator().manual_seed(cell.spec.seed)

    def drive(feed: Feed) -> None:
        for number, batch in enumerate(history.batches, 1):
            feed(partial(batch_of, subject, batch.lengths, generator))
            if history.empty_cache_every and number % history.empty_cache_every == 0:
                feed.tracker.trace.events.append(0)

    return simulate(subject, cell.spec, device, load, drive=drive)


def assert_same_bytes(result: History, trace: Trace, conf: AllocConf) -> None:
    """Each step's peak, end and phases, allocated and reserved, are those of the long trace."""
    level = runs.levels(result.steps, conf, None)
    long = memory.levels(trace, conf, None)
    every = result.steps.empty_cache_every
    ends = [mark.event for mark in trace.marks]
    starts = {
        step: min(mark.event for mark in trace.marks if mark.step == step and mark.phase != "end")
        for step in range(1, trace.steps() + 1)
    }
    assert len(level.peak) == trace.steps()
    for step, start in starts.items():
        end = starts.get(step + 1, ends[-1])
        if every and step % every == 0:
            end -= 1  # the emptying of the cache
        window = range(start - 1, end)
        assert level.peak[step - 1] == max(long.allocated[at] for at in window), step
        assert level.after[step - 1] == long.allocated[end - 1], step
        if long.reserved is not None:
            assert level.reserved[step - 1] == max(long.reserved[at] for at in range(start, end)), (
                step
            )
            assert level.reserved_after[step - 1] == long.reserved[end - 1], step
    whole = memory.analyse(trace, long)
    assert {**dict.fromkeys(whole.phases, 0), **level.phases} == whole.phases


def assert_same_steps(result: History, trace: Trace) -> None:
    """Each step's blocks and events are those of the long trace."""
    block = len(result.steps.blocks)
    for step in range(1, trace.steps() + 1):
        own = result.steps.steps[result.steps.order[step - 1]]
        described = own.describe()
        assert [one.nbytes for one in described] == list(own.sizes)
        after = block + len(described)
        for mine, other in zip(described, trace.blocks[block:after], strict=True):
            assert mine == other, step
        block = after
    assert block == len(trace.blocks)
    for step in range(1, trace.steps() + 1):
        ops = result.ops[result.steps.order[step - 1]]
        for kind in ("flops", "nbytes"):
            mine = sum(getattr(op, kind) * count for op, count in ops)
            assert mine == sum(getattr(op, kind) for op in trace.ops if op.step == step), step


def lengths_of(seed: int, count: int, low: int, high: int) -> list[int]:
    random.seed(seed)
    return [random.randint(low, high) for _ in range(count)]


LOOPS = ("script", "step-function", "trainer")


RUNS: list[dict[str, Any]] = [
    {"method": "lora"},
    {"method": "full", "optimizer": "adamw", "empty_cache_every": 2},
    {"method": "qlora", "empty_cache_every": 3, "batch_size": 3},
    {"method": "lora", "device": "sim:cpu"},
    {"method": "lora", "checkpointing": "reentrant", "alloc_conf": "expandable_segments:True"},
]


@pytest.mark.parametrize(
    ("fields", "loop"),
    [
        pytest.param(
            fields,
            loop,
            id="-".join(map(str, [*fields.values(), loop])),
            # Every loop once, and every run once; the rest with the whole grid.
            marks=() if place == 0 or loop == "script" else pytest.mark.whole_grid,
        )
        for place, fields in enumerate(RUNS)
        for loop in LOOPS
    ],
)
def test_a_run_is_the_long_simulation_of_its_steps(
    models: dict[str, str], tmp_path: Path, loop: str, fields: dict[str, Any]
) -> None:
    drawn = [5, 9, 7, 7, 30, 12, *lengths_of(len(loop), 25, 20, 40), 33, 33]
    cell = resolved(spec_of(tmp_path, drawn, model=models["llama"], loop=loop, **fields))
    result, trace = composed(cell), genuine(cell)
    assert_same_bytes(result, trace, AllocConf.parse(cell.spec.alloc_conf))
    assert_same_steps(result, trace)


def drawn_for_methods() -> list[int]:
    """Batches of two: a padded one of each of many lengths, and a few that are not padded."""
    lengths = [*range(18, 49), 56, 64]
    random.Random(5).shuffle(lengths)
    pairs = [(length, length - 3) for length in lengths]
    return [one for pair in [(20, 20), *pairs, (33, 33), (48, 48)] for one in pair]


#: One of each kind of size: of tokens alone, with virtual ones, of positions squared, drawn, fixed.
DERIVED = (
    "lora",
    "full",
    "qlora",
    "ia3",
    "prefix-tuning",
    "prompt-tuning",
    "adaption-prompt",
    "shira",
    "oft",
    "vblora",
)


@pytest.mark.parametrize("method", DERIVED)
def test_derived_steps_are_simulated_ones(
    models: dict[str, str], tmp_path: Path, method: str
) -> None:
    try:
        cell = resolved(
            spec_of(tmp_path, drawn_for_methods(), model=models["llama"], method=fitted(method))
        )
        result = composed(cell)
    except (UsageError, UnsupportedError) as error:
        if "--lengths" in str(error):
            raise
        pytest.skip(str(error))
    assert result.simulated < result.shapes, "some steps were derived"
    trace = genuine(cell)
    assert_same_steps(result, trace)
    assert_same_bytes(result, trace, AllocConf())


def test_a_record_tells_of_the_whole_run(models: dict[str, str], tmp_path: Path) -> None:
    drawn = [*lengths_of(3, 30, 20, 60), 100, 90, 30, 31, 64, 64, 12]
    record = run(spec_of(tmp_path, drawn, model=models["llama"], empty_cache_every=5))
    assert record.status == "ok", record.error
    check_invariants(record)
    history = record.memory.history
    assert history is not None
    assert (history.steps, history.peak_batch, history.peak_length) == (19, 2, 100)
    assert history.peak_step == 16
    series = history.series
    assert series.step == list(range(1, 20))
    assert series.length[15:] == [100, 31, 64, 12]
    assert series.batch[-1] == 1
    assert max(series.peak_allocated) == record.memory.peak_allocated
    assert series.peak_reserved is not None
    assert max(series.peak_reserved) == record.memory.peak_reserved
    assert history.simulated_shapes <= history.distinct_shapes
    assert Record.from_json(record.to_json()) == record
    shorter = run(spec_of(tmp_path, drawn, model=models["llama"], steps=4)).memory
    assert shorter.history is not None
    assert shorter.history.steps == 4


def test_flops_are_those_of_the_mean_step(models: dict[str, str], tmp_path: Path) -> None:
    fields = {"model": models["llama"], "batch_size": 1}
    one, other = (
        run(spec_of(tmp_path, [length], **fields)).flops for length in (24, 48)
    )  # fmt: skip
    both = run(spec_of(tmp_path, [24, 48, 48, 24], **fields)).flops
    assert one is not None
    assert other is not None
    assert both is not None
    for phase, count in both.phases.items():
        assert count == (one.phases[phase] + other.phases[phase]) // 2


def test_an_end_of_memory_names_step_and_length(models: dict[str, str], tmp_path: Path) -> None:
    drawn = [16, 16, 17, 17, 16, 16, 250, 240, 16, 16]
    wide = ("vocab_size=4000000", "max_position_embeddings=4096")
    spec = spec_of(tmp_path, drawn, model=models["llama"], model_override=wide, device="t4")
    record = run(spec)
    assert record.status == "oom"
    assert record.error is not None
    assert "out of memory at step 4 (batch of 2 x 250 tokens) in the " in record.error
    assert "expandable_segments:True" in record.error
    check_invariants(record)
