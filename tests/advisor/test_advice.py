"""Advice from records: the largest that fits, the lever that is needed, and how answers rank."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.advisor.advice import LENGTH_STEP, LEVERS, Advice, Question, advise, ranked
from profiler.advisor.printed import answer
from profiler.errors import UsageError
from profiler.hardware import devices
from profiler.record import Fits, Params, Record, Time
from profiler.spec import RunSpec

CARD = devices.device("rtx-4090")
GB = 10**9


def need(spec: RunSpec, weights: int, each: int) -> int:
    """A made-up method: 4-bit weights are a third, checkpointing a fifth of the activations."""
    base = weights // 3 if spec.quantization == "nf4-dq" else weights
    per_token = each // 5 if spec.checkpointing == "non-reentrant" else each
    return base + per_token * spec.batch_size * spec.seq_len // 1024


def bench(weights: int, each: int, **status: str) -> Any:
    """`profiler.execute.run` for that method; `status` by the lever's field that breaks it."""

    def run(spec: RunSpec) -> Record:
        needed = need(spec, weights, each)
        fits = needed <= CARD.memory_bytes
        broken = next((status[name] for name in status if getattr(spec, name, None)), None)
        record = Record(
            id="x",
            status=broken or ("ok" if fits else "oom"),  # type: ignore[arg-type]
            error=None if fits else "out of memory: it needs more",
            source="simulated",
            spec=spec.to_dict(),
            fits=Fits(capacity=CARD.memory_bytes, headroom=CARD.memory_bytes - needed),
            time=Time(source="predicted", step=1.0, phases={}, tokens_per_second=100.0),
        )
        record.memory.device_total = needed
        record.memory.at_peak = {"base_parameters": weights, "activations": needed - weights}
        return record

    return run


def ask(weights: int, each: int, find: Any = "batch", limit: int = 4096, **more: Any) -> Advice:
    spec = RunSpec(model="opt-125m", seq_len=1024, **more)
    return advise(Question(spec, find, limit), bench(weights, each))[0]


def test_what_fits_needs_no_lever() -> None:
    found = ask(10 * GB, 2 * GB)
    assert (found.status, found.change) == ("fits", "")
    assert found.needed is not None
    assert found.beyond is not None
    assert found.needed <= CARD.memory_bytes < found.beyond
    assert found.batch_size == (CARD.memory_bytes - 10 * GB) // (2 * GB)


@pytest.mark.parametrize(
    ("weights", "each", "change"),
    [
        (20 * GB, 10 * GB, "checkpointing"),
        (40 * GB, 5 * GB, "nf4-dq weights"),
        (48 * GB, 20 * GB, "nf4-dq weights and checkpointing"),
    ],
)
def test_the_least_change_that_makes_it_fit(weights: int, each: int, change: str) -> None:
    found = ask(weights, each)
    assert (found.status, found.change) == ("fits", change)
    assert all(found.spec[name] == value for name, value in LEVERS[change].items())


def test_what_was_asked_for_is_no_lever() -> None:
    assert ask(20 * GB, 10 * GB, checkpointing="none").change == "nf4-dq weights"
    assert ask(40 * GB, GB, quantization="none").status == "too large"


def test_nothing_helps() -> None:
    found = ask(100 * GB, 10 * GB)
    assert found.status == "too large"
    assert "out of memory" in found.reason
    (line,) = answer([found], "batch")
    assert line.startswith("Nothing fits, whatever is changed. lora comes closest")


def test_a_lever_that_the_method_refuses_is_passed_over() -> None:
    spec = RunSpec(model="opt-125m")
    refuses = bench(20 * GB, 10 * GB, checkpointing="unsupported")
    found, records = advise(Question(spec, "batch", 64), refuses)
    assert found.change == "nf4-dq weights"
    assert found.trials <= len(records)

    def unknown(spec: RunSpec) -> Record:
        if spec.quantization:
            raise UsageError("full cannot be trained in 4 bits")
        made: Record = bench(40 * GB, GB)(spec)
        return made

    assert advise(Question(spec, "batch", 64), unknown)[0].status == "too large"


def test_a_lever_that_leaves_another_method_is_none() -> None:
    def run(spec: RunSpec) -> Record:
        made: Record = bench(40 * GB, GB)(spec)
        trainable = 10 if spec.quantization == "nf4-dq" else 1000  # packed weights are frozen
        made.params = Params(total=1000, trainable=trainable, trainable_fraction=0.5)
        return made

    question = Question(RunSpec(model="opt-125m", method="full"), "batch", 64)
    assert advise(question, run)[0].status == "too large"


def test_a_method_without_an_answer_says_why() -> None:
    spec = RunSpec(model="opt-125m", stack="script")
    found, _ = advise(Question(spec, "batch", 64), bench(GB, GB, stack="unsupported"))
    assert found.status == "unsupported"


def test_lengths_are_searched_in_steps_up_to_what_the_model_knows() -> None:
    found = ask(10 * GB, 2 * GB, find="length", limit=16384)
    assert found.seq_len % LENGTH_STEP == 0
    room = CARD.memory_bytes - 10 * GB
    assert found.seq_len <= room * 1024 / (2 * GB) < found.seq_len + LENGTH_STEP
    capped = ask(10 * GB, 2 * GB, find="length", limit=2048)
    assert (capped.seq_len, capped.capped) == (2048, True)


def test_the_fastest_that_needs_no_change_comes_first() -> None:
    def one(method: str, status: str, change: str, speed: float | None) -> Advice:
        return Advice(
            method=method, status=status, change=change, batch_size=1, seq_len=1, spec={},
            tokens_per_second=speed,
        )  # fmt: skip

    rows = [
        one("a", "too large", "", None),
        one("b", "fits", "checkpointing", 900.0),
        one("c", "fits", "", 100.0),
        one("d", "fits", "", 200.0),
        one("e", "unsupported", "", None),
    ]
    assert [row.method for row in ranked(rows)] == ["d", "c", "b", "a", "e"]
    lines = answer(ranked(rows), "batch")
    assert lines[0] == "As it is, 2 of 5 fit."
    assert "b with checkpointing" in lines[1]
