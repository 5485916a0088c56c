"""The method that ARCHITECTURE.md adds as an example, taken from its text and run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny import write

import profiler
from profiler.analysis import memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.bench.measured import prepare, track
from profiler.errors import UsageError
from profiler.method_choice import choose_method
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import methods
from profiler.subject.methods import registry
from profiler.subject.workloads.train import Unwatched

DOCUMENT = Path(__file__).parent.parent / "ARCHITECTURE.md"


@dataclass
class Example:
    """The example: `registered` is the name it takes, `named` how a user names file and class."""

    registered: str
    named: str


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The example as a user's own file; its name is taken only as long as the tests run."""
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if "@register(" in block)
    ((name, cls),) = re.findall(r'@register\("([^"]+)"\)\nclass (\w+)', code)
    file = tmp_path_factory.mktemp("mine") / "mine.py"
    file.write_text(code)
    before = dict(registry._METHODS)
    choose_method(f"{file}:{cls}")
    assert set(methods.names()) - before.keys() == {name}
    yield Example(name, f"{file}:{cls}")
    registry._METHODS.clear()
    registry._METHODS.update(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(Path(tmp_path_factory.mktemp("models")))["llama"]


def test_it_is_simulated(example: Example, model: str) -> None:
    record = profiler.run(RunSpec(model=model, method=f"{example.named}:r=4", seq_len=8))
    plain = profiler.run(RunSpec(model=model, method="lora:r=4", seq_len=8))
    assert record.status == "ok", record.error
    assert record.params == plain.params
    assert record.spec["method"]["config"]["decay"] == 0.999
    # Beside AdamW's two, one more number for each that is trained.
    averages = record.memory.at_peak["optimizer_state"] - plain.memory.at_peak["optimizer_state"]
    assert averages == plain.memory.at_peak["adapter_parameters"]


def test_it_is_measured_as_it_is_simulated(example: Example, model: str) -> None:
    spec = RunSpec(model=model, method=f"{example.named}:decay=0.5", seq_len=8, device="sim:cpu")
    simulated = profiler.run(spec)
    assert simulated.status == "ok", simulated.error
    subject, step = prepare(resolve(spec.replace(device="cpu")))
    trace = track(subject, step)
    measured = memory.analyse(trace, memory.levels(trace, AllocConf(), None))
    assert measured.phases == simulated.memory.phases
    assert measured.at_peak == simulated.memory.at_peak
    assert measured.modules == simulated.memory.modules


def test_it_does_what_it_says(example: Example, model: str) -> None:
    spec = RunSpec(model=model, method=f"{example.registered}:decay=0.5", seq_len=8, device="cpu")
    subject, step = prepare(resolve(spec))
    trained = [parameter for parameter in subject.model.parameters() if parameter.requires_grad]
    expected: list[torch.Tensor] = []
    for number in range(3):
        step(Unwatched())
        now = [parameter.detach().clone() for parameter in trained]
        expected = now if number == 0 else [(a + b) / 2 for a, b in zip(expected, now, strict=True)]
    averages = list(subject.method.state(subject.model))
    torch.testing.assert_close(averages, expected)


@pytest.mark.parametrize("options", ["decay=1.5", "decay=none", "dekay=0.9"])
def test_a_wrong_option_is_one_line(example: Example, model: str, options: str) -> None:
    with pytest.raises(UsageError) as raised:
        resolve(RunSpec(model=model, method=f"{example.registered}:{options}", seq_len=8))
    assert "\n" not in str(raised.value)
