"""The lines that blocks are said to come from: of a module in a file of its own, watched for real.

Each marked line of `CODE` must be the one that its op's blocks name, in the forward and in the
backward.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler.bench.modules import ModulePaths
from profiler.bench.sources import named
from profiler.bench.tracker import Rules, StorageTracker
from profiler.subject.shadows import Shadows
from profiler.trace import Block, Trace

CODE = """
import torch
from torch.utils.checkpoint import checkpoint


class Marked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)  # linear
        y = checkpoint(self.inner, y, use_reentrant=False)
        half = torch.exp(y)[:, :4]  # exp and slice
        return helper(half)

    def inner(self, y):
        with torch.no_grad():
            y.detach() + 1
        return torch.sigmoid(torch.tanh(y))  # again


def helper(t):
    return (t * 3).sum()  # helper
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "marked_module.py"
    path.write_text(CODE)
    return path


@pytest.fixture(scope="module")
def module(file: Path) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("marked_module", file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["marked_module"] = found
    spec.loader.exec_module(found)
    yield found
    del sys.modules["marked_module"]


@pytest.fixture(scope="module")
def blocks(module: Any) -> list[Block]:
    """Of two steps."""
    model = module.Marked()
    optimizer = torch.optim.Adam(model.parameters())
    trace = Trace(cuda=False, source="measured")
    paths, shadows = ModulePaths(model), Shadows()
    shadows.enabled = False
    tracker = StorageTracker(trace, paths, Rules(), shadows)
    batch = torch.ones(2, 8)
    tracker.register(batch, "inputs", "", "batch")
    with paths.watching(), tracker:
        for number in range(2):
            tracker.step = number
            tracker.phase("forward")
            loss = model(batch)
            tracker.phase("backward")
            loss.backward()
            tracker.phase("optimizer")
            optimizer.step()
        tracker.close()
    return trace.blocks


def line(mark: str) -> str:
    number = next(i for i, text in enumerate(CODE.splitlines(), 1) if text.endswith(f"# {mark}"))
    return f"marked_module.py:{number}"


def sources(blocks: list[Block], op: str, phase: str) -> set[str]:
    found = {block.source for block in blocks if block.op == op and block.phase == phase}
    assert found, f"no {op} in the {phase}"
    return found


@pytest.mark.parametrize(
    ("op", "phase", "mark"),
    [
        ("aten.addmm", "forward", "linear"),  # called by torch.nn.Linear
        ("aten.mm", "backward", "linear"),
        ("aten.exp", "forward", "exp and slice"),
        ("aten.slice_backward", "backward", "exp and slice"),  # made by a view
        ("aten.tanh", "forward", "again"),
        ("aten.tanh", "backward", "again"),  # computed again
        ("aten.tanh_backward", "backward", "again"),
        ("aten.sigmoid_backward", "backward", "again"),
        ("aten.sum", "forward", "helper"),
    ],
)
def test_an_op_names_its_line_and_its_backward_the_same(
    blocks: list[Block], op: str, phase: str, mark: str
) -> None:
    assert sources(blocks, op, phase) == {line(mark)}


def test_an_op_that_makes_no_node_takes_no_line_from_another(blocks: list[Block]) -> None:
    """`exp`'s backward is a product, as that of `t * 3` is: each names its own line."""
    assert sources(blocks, "aten.mul", "forward") == {line("helper")}
    assert sources(blocks, "aten.mul", "backward") == {line("helper"), line("exp and slice")}


def test_an_optimizer_step_names_the_optimizer(blocks: list[Block]) -> None:
    found = sources(blocks, "aten.zeros_like", "optimizer")
    assert all(source.startswith("torch/optim/") for source in found)


def test_what_was_there_before_has_no_line(blocks: list[Block]) -> None:
    assert [block.source for block in blocks if block.op == "batch"] == [""]


def test_files_are_named_without_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lib" / "pack" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    assert named(str(package / "deep.py")) == "pack/inner/deep.py"
    assert named(str(tmp_path / "work" / "train.py")) == "work/train.py"
    assert named(str(tmp_path / "venv/lib/python3.11/site-packages/single.py")) == "single.py"
    monkeypatch.chdir(package)
    assert named(str(tmp_path / "train.py")) == "train.py"
