"""What a reader does with a page's charts and tables, done in headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devtools import Browser

from profiler.analysis import score as formulas
from profiler.record import Record
from profiler.report import build, scores, tradeoff
from profiler.report.cells import Cell, arrange

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'"
METHODS = ("lora:r=64", "ia3", "bitfit", "p-tuning", "prompt-tuning", "qlora", "full",
           "lora:r=8,target_modules=q_proj+v_proj")  # fmt: skip

#: Vega draws in steps of its own; this waits for all charts to be where they go.
DRAWN = """
new Promise((done, failed) => {
  const figures = [...document.querySelectorAll("figure.interactive")];
  const look = (left) => {
    if (figures.every((one) => one.dataset.drawn === THEME)) {
      Promise.all(figures.map((one) => one.view.runAsync())).then(() => done(figures.length));
    } else if (left) setTimeout(() => look(left - 1), 50);
    else failed(new Error("a chart was not drawn"));
  };
  look(400);
})
"""


@pytest.fixture(scope="module")
def records(
    record_maker: Callable[..., Record], charted: Callable[[Record], Record]
) -> list[Record]:
    return [
        charted(record_maker(method, card, model="gpt2-xl"))
        for card in ("l40s", "a100-80gb")
        for method in METHODS
    ]


@pytest.fixture(scope="module")
def page(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(records, tmp_path_factory.mktemp("charts"), title="Charts")


def wait(browser: Browser, theme: str = "light") -> int:
    answer = browser.call(
        "Runtime.evaluate",
        expression=DRAWN.replace("THEME", json.dumps(theme)),
        awaitPromise=True,
        returnByValue=True,
    )
    assert "exceptionDetails" not in answer, answer
    return int(answer["result"]["value"])


def set_control(browser: Browser, figure: str, label: str, value: Any) -> None:
    """Put a value into the control that a reader knows by its label, as one would."""
    found = browser.evaluate(
        f"""(() => {{
          const binds = [...document.querySelectorAll('#{figure} .vega-bind')];
          const bind = binds.find((one) =>
            one.querySelector('.vega-bind-name').textContent.trim() === {json.dumps(label)});
          const inputs = [...bind.querySelectorAll('select, input')];
          const one = inputs[0].type === 'radio'
            ? inputs.find((input) => input.value === {json.dumps(value)}) : inputs[0];
          if (one.type === 'radio') one.click();
          else {{
            one.value = {json.dumps(value)};
            one.dispatchEvent(new Event('input', {{bubbles: true}}));
            one.dispatchEvent(new Event('change', {{bubbles: true}}));
          }}
          return true;
        }})()"""
    )
    assert found
    wait(browser)


def marks(browser: Browser, figure: str, kind: str) -> list[str]:
    """What the marks of a kind say of themselves to who cannot see them."""
    found: list[str] = browser.evaluate(
        f"""[...document.querySelectorAll('#{figure} .mark-{kind} [aria-label]')]
            .map((one) => one.getAttribute('aria-label'))"""
    )
    return found


def texts(browser: Browser, figure: str) -> list[str]:
    found: list[str] = browser.evaluate(
        f"[...document.querySelectorAll('#{figure} .mark-text text')].map((one) => one.textContent)"
    )
    return found


def chosen(records: list[Record], card: str) -> list[Cell]:
    return [cell for cell in arrange(records) if cell.device == card]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_all_charts_are_drawn_in_silence(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    assert wait(browser, "dark" if dark else "light") == 5
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_charts_follow_the_theme_and_keep_what_was_chosen(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    wait(browser)
    set_control(browser, "pscp-chart", "alpha", 3)
    before = texts(browser, "pscp-chart")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    wait(browser, "dark")
    assert texts(browser, "pscp-chart") == before
    assert browser.complaints() == []


def test_weights_move_the_ranking_as_the_formulas_do(
    browser: Browser, page: Path, records: list[Record]
) -> None:
    browser.open(page, width=1280)
    wait(browser)
    cells = arrange(records)
    points = tradeoff.points(cells, scores.of_cells(cells))
    usual = tradeoff.constants(tradeoff.ranked(points))
    group = [one for one in tradeoff.ranked(points) if one.cell.device == cells[0].device]
    for form, weights in (
        ("exponential", (1, 1, 1)),
        ("exponential", (0, 0.5, 4)),
        ("product", (0, 0.5, 4)),
        ("product", (2, 1, 0)),
    ):
        set_control(browser, "pscp-chart", "Form", form)
        for name, weight in zip(tradeoff.WEIGHTS, weights, strict=True):
            set_control(browser, "pscp-chart", name, weight)
        shown = {
            text.split("; name: ")[1].split(";")[0]: float(text.split("pscp: ")[1].split(";")[0])
            for text in (f"{label};" for label in marks(browser, "pscp-chart", "rect"))
        }
        keys = tradeoff.EXPONENTIAL if form == "exponential" else tradeoff.PRODUCT
        costs = [{key: float(getattr(one, key)) for key in keys} for one in group]
        by_key = dict(zip(keys, weights, strict=True))
        largest = {key: max(one[key] for one in costs) for key in keys}
        for point, cost in zip(group, costs, strict=True):
            expected = (
                formulas.pscp_exponential(point.score or 0, cost, largest, by_key)
                if form == "exponential"
                else formulas.pscp_product(point.score or 0, cost, usual, by_key)
            )
            assert shown[point.cell.short] == pytest.approx(expected, rel=1e-3)
        assert len(shown) == len(group)


def test_axes_and_runs_of_the_trade_off_can_be_chosen(
    browser: Browser, page: Path, records: list[Record]
) -> None:
    browser.open(page, width=1280)
    wait(browser)
    for card in ("l40s", "a100-80gb"):
        group = f"gpt2-xl · {card} · simulated"
        set_control(browser, "tradeoff-chart", "Runs", group)
        set_control(browser, "tradeoff-chart", "Across", "memory, GiB")
        set_control(browser, "tradeoff-chart", "Up", "trainable, millions")
        cells = chosen(records, card)
        assert len(marks(browser, "tradeoff-chart", "symbol")) == len(cells)
        points = tradeoff.points(cells, None)
        best = formulas.front([(one.memory, one.trainable) for one in points])
        names = {one.cell.short for one, kept in zip(points, best, strict=True) if kept}
        listed = [text for text in texts(browser, "tradeoff-chart") if "  " in text]
        assert {text.split("  ")[1] for text in listed} == names
    set_control(browser, "tradeoff-chart", "Up", "score")
    # What is published: IA3, BitFit, prompt tuning, and LoRA, which is here twice.
    assert len(marks(browser, "tradeoff-chart", "symbol")) == 5
    assert "↑ score" in texts(browser, "tradeoff-chart")


def test_a_run_of_the_timeline_can_be_chosen_and_its_moments_are_told(
    browser: Browser, page: Path, records: list[Record]
) -> None:
    browser.open(page, width=1280)
    wait(browser)
    cell = chosen(records, "l40s")[2]
    name = f"{cell.short} · gpt2-xl · l40s · simulated"
    set_control(browser, "timeline-chart", "Run", name)
    assert cell.memory.peak_allocated
    peak = f"allocated: {cell.memory.peak_allocated / 2**30:.2f} GiB"
    assert any(peak in text for text in marks(browser, "timeline-chart", "rect"))
    browser.evaluate(
        "document.querySelector('#timeline-chart')"
        ".scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    box = browser.evaluate(
        "(() => { const svg = document.querySelector('#timeline-chart svg');"
        " const box = svg.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    for x in (box[0], box[0] + 3):
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=box[1])
    wait(browser)
    tip = browser.evaluate("document.querySelector('#vg-tooltip-element').textContent")
    assert "allocated" in tip
    assert "GiB" in tip
    # The wheel zooms: fewer events are between the axis' ends.
    span = "(() => { const d = document.querySelector('#timeline-chart').view.scale('x').domain();"
    before = browser.evaluate(span + " return d[1] - d[0]; })()")
    browser.call(
        "Input.dispatchMouseEvent", type="mouseWheel", x=box[0], y=box[1], deltaX=0, deltaY=-120
    )
    wait(browser)
    assert browser.evaluate(span + " return d[1] - d[0]; })()") < before


def test_modules_and_kernels_of_a_run_can_be_chosen(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    wait(browser)
    count = len(marks(browser, "modules-chart", "rect"))
    set_control(browser, "modules-chart", "What", "activations")
    assert 0 < len(marks(browser, "modules-chart", "rect")) < count
    assert len(marks(browser, "roofline-chart", "symbol")) == 6
    options = browser.evaluate(
        "[...document.querySelectorAll('#roofline-chart select option')].map((one) => one.value)"
    )
    set_control(browser, "roofline-chart", "Run", options[-1])
    assert len(marks(browser, "roofline-chart", "symbol")) == 6


def test_a_chart_can_be_saved(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    wait(browser)
    links = browser.evaluate(
        "[...document.querySelectorAll('#timeline-chart .vega-actions a')]"
        ".map((one) => one.textContent)"
    )
    assert links == ["Save as SVG", "Save as PNG"]
    image = browser.call(
        "Runtime.evaluate",
        expression="document.querySelector('#timeline-chart').view.toImageURL('png')",
        awaitPromise=True,
    )
    assert image["result"]["value"].startswith("data:image/png;base64,")


def test_a_table_is_sorted_and_filtered(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    table = "[...document.querySelectorAll('#methods table')][0]"
    column = (
        f"(() => {{ const t = {table}; const head = [...t.tHead.rows[0].cells];"
        " const at = head.findIndex((one) => one.textContent.includes('trainable'));"
        " return [...t.tBodies].map((body) => [...body.rows]"
        " .filter((row) => row.cells.length > 1 && !row.hidden)"
        " .map((row) => Number(row.cells[at].dataset.count))); })()"
    )
    click = (
        f"{table}.tHead.rows[0].querySelectorAll('button')"
        "[[...document.querySelectorAll('#methods table')][0].tHead.rows[0].textContent"
        ".includes('batch') ? 3 : 2].click()"
    )
    before = browser.evaluate(column)
    browser.evaluate(click)
    up = browser.evaluate(column)
    assert up == [sorted(part) for part in before]
    browser.evaluate(click)
    assert browser.evaluate(column) == [sorted(part, reverse=True) for part in before]
    rows = sum(map(len, before))
    assert rows == len(METHODS) * 2
    browser.evaluate(
        f"(() => {{ const input = {table}.closest('.scroll').previousElementSibling"
        ".querySelector('input'); input.value = 'ia3';"
        " input.dispatchEvent(new Event('input')); })()"
    )
    assert sum(map(len, browser.evaluate(column))) == 2
    status = f"{table}.closest('.scroll').previousElementSibling.querySelector('[role=status]')"
    assert browser.evaluate(f"{status}.textContent") == f"2 of {rows} rows"


def test_what_is_taken_along_is_what_the_page_shows(
    browser: Browser, page: Path, records: list[Record]
) -> None:
    browser.open(page, width=1280)
    found = browser.call(
        "Runtime.evaluate",
        expression="""Promise.all([...document.querySelectorAll('#provenance a[download]')].map(
          async (one) => {
            const [head, data] = one.href.split(',');
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const stream = new Blob([bytes]).stream();
            const plain = one.download.endsWith('.gz')
              ? stream.pipeThrough(new DecompressionStream('gzip')) : stream;
            return [one.download.replace(/[.]gz$/, ''), await new Response(plain).text()];
          })).then(Object.fromEntries)""",
        awaitPromise=True,
        returnByValue=True,
    )["result"]["value"]
    assert set(found) == {"records.json", "records.csv", "tables.md", "tables.tex"}
    assert len(json.loads(found["records.json"])) == len(records)
    assert found["records.csv"].count("\n") == len(records) + 1
    assert found["tables.tex"].count("\\toprule") > 1
    assert "| lora:r=64" in found["tables.md"] or "`lora:r=64`" in found["tables.md"]
    for record in records:
        assert f"{record.memory.peak_allocated}" in found["records.csv"]


def test_hostile_names_run_nothing_in_charts(
    browser: Browser, records: list[Record], tmp_path: Path
) -> None:
    changed = []
    for number, record in enumerate(records[:3]):
        data = record.to_dict()
        wild = f"{HOSTILE}{number}"
        data["spec"] |= {"model": wild, "device": wild}
        data["spec"]["method"]["label"] = wild
        memory, time = data["memory"], data["time"]
        memory["timeline"]["phase"] = [wild] * len(memory["timeline"]["phase"])
        memory["timeline"]["allocated"] = {
            f"{name}{wild}": column for name, column in memory["timeline"]["allocated"].items()
        }
        memory["modules"] = {f"{path}{wild}": sizes for path, sizes in memory["modules"].items()}
        for kernel in time["kernels"]:
            kernel |= {"name": wild, "op": wild, "phase": wild}
        changed.append(Record.from_dict(data))
    table = tmp_path / "scores.csv"
    quoted = HOSTILE.replace('"', '""')
    lines = [f'"{quoted}{number}",{number + 1}' for number in range(3)]
    table.write_text("\n".join(["method,score", *lines]))
    path = build(changed, tmp_path, title="t", scores=scores.read(table))
    browser.open(path, width=1280)
    assert wait(browser) >= 3
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.complaints() == []
