"""The page in headless Chromium: no complaint, no request, no sideways scrolling, both themes."""

from __future__ import annotations

from pathlib import Path

import pytest
from devtools import Browser

from profiler.record import Record
from profiler.report import build

pytestmark = pytest.mark.browser

HOSTILE = (
    "</svg></title></style><script>window.hacked = 1</script>"
    "<img src=x onerror='window.hacked = 1'>"
)


@pytest.fixture(scope="module")
def page(
    study: list[Record], paired: list[Record], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return build(
        [*study, *paired], folder, title="A study", command="python -m profiler.sweep " + "x" * 300
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_and_is_silent(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate("document.documentElement.clientWidth") == width
    browser.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # A figure's text stays inside the window, whatever font the browser took.
    assert browser.evaluate(
        "[...document.querySelectorAll('svg.figure text')].every(item => {"
        " const box = item.getBoundingClientRect();"
        " return box.left >= 0 && box.right <= innerWidth; })"
    )
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]


def test_names_and_values_of_a_panel_do_not_overlap(browser: Browser, page: Path) -> None:
    for width in (1280, 400):
        browser.open(page, width=width)
        overlaps = browser.evaluate(
            "[...document.querySelectorAll('svg.figure')].flatMap(svg => {"
            " const texts = [...svg.querySelectorAll('text')];"
            " const boxes = texts.map(item => item.getBoundingClientRect());"
            " return boxes.flatMap((a, i) => boxes.slice(i + 1).map((b, j) => [a, b, i, i + 1 + j])"
            "  .filter(([a, b]) => a.left < b.right - 1 && b.left < a.right - 1"
            "   && a.top < b.bottom - 2 && b.top < a.bottom - 2)"
            "  .map(([a, b, i, j]) => texts[i].textContent + ' | ' + texts[j].textContent)); })"
        )
        assert overlaps == []


def test_themes_differ_and_text_follows_them(browser: Browser, page: Path) -> None:
    seen = {}
    for dark in (False, True):
        browser.open(page, width=1280, dark=dark)
        seen[dark] = browser.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('svg.figure text')).fill,"
            " getComputedStyle(document.querySelector('svg path[data-category]')).fill]"
        )
    assert seen[False][0] != seen[True][0]
    assert seen[False][1] != seen[True][1]
    assert seen[False][2] == seen[True][2]  # a category has one colour


def test_tables_scroll_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, width=400)
    assert browser.evaluate(
        "(() => { const wide = [...document.querySelectorAll('.scroll')]"
        " .filter(item => item.scrollWidth > item.clientWidth);"
        " wide.forEach(item => item.focus());"
        " return wide.length > 0 && wide.every(item => item.tabIndex === 0)"
        " && document.activeElement === wide[wide.length - 1]; })()"
    )


def test_numbers_in_the_dom_are_the_records(
    browser: Browser, page: Path, study: list[Record]
) -> None:
    browser.open(page, width=1280)
    shown = browser.evaluate(
        "[...document.querySelectorAll('#memory figure:first-of-type [data-category]')]"
        ".map(item => Number(item.dataset.bytes)).sort((a, b) => a - b)"
    )
    held = [nbytes for record in study for nbytes in record.memory.at_peak.values() if nbytes]
    assert shown == sorted(held)


def test_hostile_names_run_nothing(browser: Browser, study: list[Record], tmp_path: Path) -> None:
    data = study[0].to_dict()
    data["spec"] |= {"model": HOSTILE, "device": HOSTILE}
    data["spec"]["method"]["label"] = HOSTILE
    data["environment"] |= {HOSTILE: HOSTILE}
    data["approximations"] = [HOSTILE]
    data["error"] = HOSTILE
    for holder in data["memory"]["largest_at_peak"]:
        holder |= {"module": HOSTILE, "op": HOSTILE, "category": HOSTILE, "source": HOSTILE}
    path = build([Record.from_dict(data)], tmp_path, title=HOSTILE, command=HOSTILE)
    browser.open(path, width=400)
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]
