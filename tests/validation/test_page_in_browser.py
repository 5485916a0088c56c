"""The page in headless Chromium: no complaint, no request, no sideways scrolling, both themes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from devtools import Browser

from profiler.validation import page
from profiler.validation.result import Validation

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def path(off: Validation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page.build(off, tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_and_is_silent(browser: Browser, path: Path, width: int, dark: bool) -> None:
    browser.open(path, width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(
        "[...document.querySelectorAll('svg.figure text')].every(item => {"
        " const box = item.getBoundingClientRect();"
        " return box.left >= 0 && box.right <= innerWidth; })"
    )
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]


def test_every_point_is_where_its_numbers_are(browser: Browser, path: Path) -> None:
    """The farther right, the more was measured; the higher, the more was predicted."""
    browser.open(path, width=1280)
    points = browser.evaluate(
        "[...document.querySelectorAll('#scatter svg')].map(svg =>"
        " [...svg.querySelectorAll('[data-measured]')].map(item => {"
        "  const box = (item.querySelector('use') || item).getBoundingClientRect();"
        "  return [Number(item.dataset.measured), box.left + box.width / 2,"
        "   Number(item.dataset.predicted), -(box.top + box.height / 2)]; }))"
    )
    assert len(points) == 2
    for panel in points:
        assert len(panel) > 20
        for number, place in ((0, 1), (2, 3)):
            ordered = sorted(panel, key=lambda point: point[number])
            # Markers differ in shape by a pixel or two.
            assert all(one[place] <= other[place] + 2 for one, other in pairwise(ordered))


def test_names_and_values_of_a_panel_do_not_overlap(browser: Browser, path: Path) -> None:
    for width in (1280, 400):
        browser.open(path, width=width)
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
