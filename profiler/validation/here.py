"""This machine: calibrated, then steps predicted and measured, of pairs that no calibration knows.

The pairs are methods on models of four families, cut to few layers so that a step takes a fraction
of a second to a few. Each is measured in a process of its own, right after the calibration.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import ProfilerError
from profiler.files import replace_file
from profiler.hardware.device_profile import DeviceProfile
from profiler.record import Record
from profiler.spec import RunSpec
from profiler.validation.compare import Entry, Wanted
from profiler.validation.result import GroupInfo, RunInfo

#: The group's id.
HERE = "here"

#: Error of one step's time that is claimed not to be exceeded, in the middle of all a tenth.
BOUND = 0.25

#: Threads: with one, time can be told from what other programs took of the core.
THREADS = 1

#: Timed steps of each pair.
STEPS = 5

#: Columns of the table of pairs: the fields of their RunSpecs that differ.
COLUMNS = (
    *("model", "model_override", "method", "batch_size", "seq_len"),
    *("weights_dtype", "checkpointing"),
)

#: What runs a pair: as `profiler.isolation.COMMAND`.
_COMMAND = (
    *(sys.executable, "-P", "-u", "-X", "faulthandler"),
    *("-m", "profiler.validation.timed"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A method on a model: the fields of its RunSpec that are not their defaults."""

    method: str
    model: str
    override: tuple[str, ...] = ()
    batch_size: int = 1
    seq_len: int = 128
    fields: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        words = [self.method, self.model, *(str(value) for _, value in self.fields)]
        return f"{' '.join(words)} {self.batch_size}x{self.seq_len}"

    def spec(self) -> RunSpec:
        return RunSpec(
            model=self.model,
            model_override=self.override,
            method=self.method,
            batch_size=self.batch_size,
            seq_len=self.seq_len,
            steps=STEPS,
            device="cpu",
            **dict(self.fields),
        )


_FLOAT32 = (("weights_dtype", "float32"),)
_CHECKPOINTING = (("checkpointing", "non-reentrant"),)
_TINYLLAMA = ("num_hidden_layers=3",)
_QWEN = ("num_hidden_layers=6", "vocab_size=32000")
_SMOL = ("num_hidden_layers=2", "vocab_size=16000")
_BLOOM = ("n_layer=5", "vocab_size=40000")
_OPT = ("num_hidden_layers=8",)
_PHI = ("num_hidden_layers=3", "vocab_size=20000")

#: Methods by pair, over steps of a quarter of a second to three seconds. None of the models is one
#: that the calibration's small steps are of.
PAIRS = (
    Pair("adalora", "qwen2.5-0.5b", _QWEN, seq_len=64),
    Pair("lora", "gpt2", seq_len=56),
    Pair("prompt-tuning", "tinyllama-1.1b", _TINYLLAMA, seq_len=64),
    Pair("vera", "phi-1.5", _PHI, seq_len=112),
    Pair("p-tuning", "bloom-560m", _BLOOM, seq_len=192),
    Pair("lora", "bloom-560m", _BLOOM, fields=_FLOAT32),
    Pair("qlora", "tinyllama-1.1b", _TINYLLAMA),
    Pair("bitfit", "opt-125m", batch_size=2, seq_len=144),
    Pair("prefix-tuning", "qwen2.5-0.5b", _QWEN, batch_size=2, seq_len=192),
    Pair("full", "smollm2-1.7b", _SMOL, seq_len=64, fields=_FLOAT32),
    Pair("full", "gpt2", batch_size=2),
    Pair("lora", "phi-1.5", _PHI, seq_len=256, fields=_CHECKPOINTING),
    Pair("ia3", "opt-350m", _OPT, batch_size=2, seq_len=288),
    Pair("dora", "tinyllama-1.1b", ("num_hidden_layers=2",)),
    Pair("lora", "tinyllama-1.1b", _TINYLLAMA, batch_size=2, seq_len=256),
)


def pairs(*, quick: bool) -> Sequence[Pair]:
    """The pairs that are held against each other."""
    if not quick:
        return PAIRS
    small = ("n_layer=1", "n_embd=64", "n_head=2", "vocab_size=256")
    return (Pair("lora", "gpt2", small, seq_len=16),)


def calibrated(output: Path, *, quick: bool, say: Callable[[str], None]) -> DeviceProfile:
    """This machine's profile, measured now and kept in `output`."""
    from profiler.calibration import cpu

    def part(name: str) -> None:
        say(f"calibrating: {name} ...")

    profile = cpu.calibrate(threads=THREADS, quick=quick, part=part)
    profile.write(output / "calibration.json")
    return profile


def measured(chosen: Sequence[Pair], output: Path, *, say: Callable[[str], None]) -> list[Record]:
    """The pairs' steps, timed one after another; kept in `output` as `here.json`, and as a
    table.

    Raises:
        ProfilerError: a pair has no result.
    """
    from profiler.isolation import run_isolated
    from profiler.resolve import resolve

    records = []
    with _threads(THREADS):
        for pair in chosen:
            say(f"measuring: {pair.name} ...")
            record = run_isolated(resolve(pair.spec()), command=_COMMAND)
            if record.status != "ok" or record.time is None:
                raise ProfilerError(f"{pair.name} has no result here: {record.error}")
            records.append(record)
    text = json.dumps([record.to_dict() for record in records], indent=1)
    replace_file(output / "here.json", text.encode())
    replace_file(output / "here.csv", table(chosen, records).encode())
    return records


def table(chosen: Sequence[Pair], records: Sequence[Record]) -> str:
    """The pairs and their seconds, as `profiler/validation/cases` keeps those of one machine."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *COLUMNS, "step_s", "elapsed_s"])
    for pair, record in zip(chosen, records, strict=True):
        spec = pair.spec()
        fields = {
            **{name: getattr(spec, name) for name in COLUMNS},
            "model_override": " ".join(spec.model_override),
            "checkpointing": spec.checkpointing or "none",
        }
        step = step_seconds(record)
        writer.writerow(
            [pair.name, *(fields[name] for name in COLUMNS), f"{step:.4g}",
             f"{step * _busy(record):.4g}"]
        )  # fmt: skip
    return text.getvalue()


def entries(
    chosen: Sequence[Pair], seconds: Sequence[float], output: Path, *, quick: bool
) -> list[Entry]:
    """The predictions that the pairs' measured seconds are held against.

    A quick calibration claims nothing.
    """
    return [
        Entry(
            case=pair.name,
            group=HERE,
            run="step",
            spec=pair.spec().replace(
                device="sim:cpu", steps=1, calibration=str(output / "calibration.json")
            ),
            wanted=(Wanted(metric="time.step", measured=number, bound=None if quick else BOUND),),
            how="measured",
        )
        for pair, number in zip(chosen, seconds, strict=True)
    ]


def step_seconds(record: Record) -> float:
    """What a measured pair's step took."""
    assert record.time is not None
    return record.time.step


def group_info(profile: DeviceProfile, records: Sequence[Record]) -> GroupInfo:
    """What the result keeps of the pairs."""
    ratios = sorted(_busy(record) for record in records)
    middle = ratios[len(ratios) // 2]
    versions = profile.environment
    return GroupInfo(
        id=HERE,
        title="This machine, calibrated",
        source="steps measured here, right after the calibration",
        card=f"{profile.name}, {profile.threads} thread",
        versions={
            name: str(versions[name])
            for name in ("torch", "transformers", "peft", "bitsandbytes")
            if versions.get(name)
        },
        notes=[
            "Times are the processor's for the one thread that computes, which is the time that "
            "passes where nothing else runs. Here "
            f"{middle:.2f} times as much passed, in the middle of the pairs.",
            "The calibration times products, kernels and attention at sizes of its own, and steps "
            "of two models of 64 hidden units for what Python adds to an op; no pair is in it.",
        ],
        runs=[RunInfo(name="step", about="the step's time from the device profile")],
        given=True,
    )


def _busy(record: Record) -> float:
    """Elapsed time over the processor's."""
    assert record.time is not None
    return float(getattr(record.time, "elapsed", record.time.step)) / record.time.step


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Processes that are started meanwhile compute with so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
