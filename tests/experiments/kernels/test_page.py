"""The study's page: what it says of what was and was not done, and that it fits a phone."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from devtools import Browser

from experiments.kernels import __main__ as command
from experiments.kernels import checking, compiling, page, timing, traffic
from experiments.kernels.results import Results, Timing
from profiler import noise
from profiler.errors import StoreError

STORED = Path(__file__).parents[3] / "reports" / "kernels"


@pytest.fixture(scope="module")
def stored() -> Results:
    return Results.from_json((STORED / command.FILE).read_bytes())


@pytest.fixture(scope="module")
def timed(stored: Results) -> Results:
    timing = Timing(
        kernel="nf4_matmul",
        shape="q_proj, 1 × 3072 × 3072",
        tile="16 × 64 × 64",
        fused=(0.5, 0.4, 0.6),
        separate=(1.0, 0.9, 1.1),
    )
    return stored.model_copy(update={"device": "a card", "timings": [timing]})


@pytest.fixture(scope="module")
def shown(timed: Results) -> str:
    return page.render(timed)


def test_without_a_gpu_no_time_is_shown(stored: Results) -> None:
    html = page.render(stored.model_copy(update={"device": "", "timings": []}))
    assert "Not timed: no CUDA device." in html
    assert 'class="badge measured"' not in html


def test_with_a_gpu_the_times_are_shown_as_measured(shown: str) -> None:
    assert "Not timed" not in shown
    assert "Time of one call on a card" in shown
    assert 'class="badge measured"' in shown
    assert "2.00 ×" in shown


def test_every_build_stands_in_a_table(stored: Results, shown: str) -> None:
    for kernel in page.kernels(stored):
        table = page.resources(kernel, stored)
        rows = [row for group in table.groups for row in group.rows]
        assert sum(len(row[2].text.split(", ")) for row in rows) == sum(
            one.kernel == kernel for one in stored.builds
        )
    assert all(f">{one.registers}</td>" in shown for one in stored.builds)


def test_a_wrong_kernel_is_not_passed_over(stored: Results) -> None:
    wrong = stored.checks[0].model_copy(update={"worst": 3.0})
    said = page.sentences(stored.model_copy(update={"checks": [wrong, *stored.checks[1:]]}))
    assert any(sentence.startswith("Not all of") for sentence in said)
    assert not any(sentence.startswith("Not all of") for sentence in page.sentences(stored))


def test_the_same_results_give_the_same_page(timed: Results, shown: str) -> None:
    assert page.render(Results.from_json(timed.to_json())) == shown


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', '{"schema": 1, "builds": []}'])
def test_what_is_no_result_is_one_line(text: str) -> None:
    with pytest.raises(StoreError, match="not results of the kernels") as raised:
        Results.from_json(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", traffic.SHAPES)
def test_what_one_pass_saves_is_what_it_does_not_move(shape: traffic.Shape) -> None:
    decoded = traffic.nf4(shape)
    assert decoded.saved == 2 * decoded.temporary == 4 * shape.columns * shape.depth
    adapter = traffic.lora(shape, rank=16)
    wider = traffic.lora(shape, rank=32)
    assert 0 < adapter.saved < wider.saved
    # x once more, and the adapter's result six times.
    least = 2 * shape.rows * (shape.depth + 6 * shape.columns)
    assert adapter.saved - least == 2 * 2 * shape.rows * 16


def test_it_is_drawn_again_without_torch_and_triton(tmp_path: Path) -> None:
    shutil.copy(STORED / command.FILE, tmp_path)
    code = (
        "import sys; sys.modules.update(torch=None, triton=None);"
        "from experiments.kernels.__main__ import main;"
        f"sys.exit(main(['--render', '--output', {str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=STORED.parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize(("worst", "code"), [(0.5, 0), (1.5, 1)])
def test_what_was_found_is_stored_and_drawn(
    worst: float, code: int, stored: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = stored.checks[0].model_copy(update={"worst": worst})
    monkeypatch.setattr(noise, "hush", lambda: None)
    monkeypatch.setattr(timing, "device", lambda: "")
    monkeypatch.setattr(checking, "check", lambda cases: [check])
    monkeypatch.setattr(compiling, "build", lambda variant, capability: stored.builds[0])
    assert command.main(["--quick", "--output", str(tmp_path)]) == code
    found = Results.from_json((tmp_path / command.FILE).read_bytes())
    assert found.checks == [check]
    assert set(found.builds) == {stored.builds[0]}
    assert "release" in found.environment["ptxas"]
    drawn = (tmp_path / "index.html").read_bytes()
    assert command.main(["--render", "--output", str(tmp_path)]) == code
    assert (tmp_path / "index.html").read_bytes() == drawn


def test_without_triton_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main(["--output", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install triton" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [["--render"], ["--rendr"], ["nf4"]])
def test_wrong_usage_is_one_line(
    flags: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command.main([*flags, "--output", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_and_is_silent(
    browser: Browser, timed: Results, tmp_path: Path, width: int, dark: bool
) -> None:
    path = page.build(timed, tmp_path)
    browser.open(path, width=width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(
        "[...document.querySelectorAll('svg.figure text')].every(item => {"
        " const box = item.getBoundingClientRect();"
        " return box.left >= 0 && box.right <= innerWidth; })"
    )
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]


def test_every_figure_and_table_can_be_heard(shown: str) -> None:
    figures = re.findall(r"<svg [^>]*>", shown)
    assert figures
    assert all('role="img"' in one and 'aria-label="Bars' in one for one in figures)
    assert shown.count("<caption>") == shown.count("<thead>") == shown.count("<table")
