"""What is drawn is what the records hold, to the byte."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.record import Record
from profiler.report import figures, palette, svg
from profiler.report.canvas import NAME_CHARACTERS, Drawing
from profiler.report.cells import Cell, arrange, categories_of
from profiler.report.text import shorten
from profiler.trace import CATEGORIES

GIB = 2**30
RecordFactory = Callable[..., Record]


@pytest.fixture
def panel(study: list[Record]) -> list[Cell]:
    """The cells of one card."""
    cells = [cell for cell in arrange(study) if cell.drawable and cell.device == "l40s"]
    assert len(cells) == 8
    return cells


def axes_of(drawing: Drawing) -> Any:
    """The one axes of a panel."""
    (axes,) = drawing.figure.axes
    return axes


def drawn(axes: Any) -> dict[str, list[tuple[float, float]]]:
    """(start, width) in bytes of each category's bars, in the order of the rows."""
    return {
        bars.get_label(): [(bar.get_x() * GIB, bar.get_width() * GIB) for bar in bars]
        for bars in axes.containers
    }


def check_stack(axes: Any, cells: Sequence[Cell], categories: Sequence[str]) -> None:
    bars = drawn(axes)
    assert list(bars) == list(categories)
    for row, cell in enumerate(cells):
        start = 0.0
        for name in categories:
            left, width = bars[name][row]
            assert width == cell.memory.at_peak.get(name, 0)
            assert left == start
            start += width


def test_bars_are_the_bytes_at_the_peak(panel: list[Cell]) -> None:
    axes = axes_of(figures.breakdown(panel))
    check_stack(axes, panel, categories_of(panel))
    ends = [sum(width for _, width in row) for row in zip(*drawn(axes).values(), strict=True)]
    assert ends == [cell.memory.peak_allocated for cell in panel]
    # The first row is the topmost, and the axis starts at nothing.
    low, high = axes.get_ylim()
    assert low > high
    assert axes.get_xlim()[0] == 0


def test_every_bar_has_its_category_s_colour(panel: list[Cell]) -> None:
    from matplotlib.colors import to_hex

    axes = axes_of(figures.breakdown(panel))
    for bars in axes.containers:
        colours = {to_hex(bar.get_facecolor()) for bar in bars}
        assert colours == {palette.CATEGORY_COLOURS[bars.get_label()]}


def test_reserved_and_capacity_stand_where_they_are(panel: list[Cell]) -> None:
    axes = axes_of(figures.breakdown(panel))
    ticks = {line.get_gid(): line.get_xdata() for line in axes.lines}
    for cell in panel:
        assert [x * GIB for x in ticks[f"{cell.key}-reserved"]] == [cell.memory.peak_reserved] * 2
    (capacity,) = [item for item in axes.collections if item.get_gid() == "capacity"]
    xs = {float(x) * GIB for segment in capacity.get_segments() for x, _ in segment}
    assert xs == {cell.record.fits.capacity for cell in panel if cell.record.fits}
    assert axes.get_xlim()[1] * GIB >= max(xs)


def test_a_cell_that_does_not_fit_says_so(panel: list[Cell]) -> None:
    axes = axes_of(figures.breakdown(panel))
    texts = [text.get_text() for text in axes.texts]
    assert sum("does not fit" in text for text in texts) == sum(not cell.fits for cell in panel)
    for cell in panel:
        assert f"{(cell.peak or 0) / GIB:.1f} GiB" in " ".join(texts)


def test_without_the_base_the_rest_is_drawn(panel: list[Cell]) -> None:
    axes = axes_of(figures.beside_base(panel))
    check_stack(axes, panel, [name for name in categories_of(panel) if name != "base_parameters"])


def test_phases_are_drawn_by_their_own_hue(panel: list[Cell]) -> None:
    """seaborn 0.13 can misplace string hues of pandas 3; every bar is checked by value."""
    from matplotlib.colors import to_hex

    axes = axes_of(figures.phases(panel))
    names = figures.phases_of(panel)
    assert names == ["forward", "backward", "optimizer"]
    assert len(axes.containers) == len(names)
    for index, (name, bars) in enumerate(zip(names, axes.containers, strict=True)):
        assert [bar.get_width() * GIB for bar in bars] == [
            cell.memory.phases[name] for cell in panel
        ]
        assert [round(bar.get_y() + bar.get_height() / 2) for bar in bars] == list(range(8))
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {palette.PHASE_COLOURS[index]}


def test_a_phase_that_a_cell_lacks_is_not_drawn(record: RecordFactory) -> None:
    odd, plain = record("qlora"), record("ia3")
    odd.memory.phases["recompute"] = 5 * GIB
    cells = arrange([odd, plain])
    axes = axes_of(figures.phases(cells))
    widths = [[bar.get_width() * GIB for bar in bars] for bars in axes.containers]
    assert widths[3] == [5 * GIB]
    notes = figures.phases(cells).notes
    assert [note.data["bytes"] for note in notes.values() if note.data.get("phase") == "recompute"]


def test_a_phase_keeps_its_colour_where_others_are_missing(record: RecordFactory) -> None:
    from matplotlib.colors import to_hex

    cell = record("qlora")
    del cell.memory.phases["forward"]
    order = ["forward", "backward", "optimizer"]
    axes = axes_of(figures.phases(arrange([cell]), order=order))
    colours = [to_hex(bar.get_facecolor()) for bars in axes.containers for bar in bars]
    assert colours == list(palette.PHASE_COLOURS[1:3])


amounts = st.dictionaries(
    st.sampled_from(CATEGORIES), st.integers(0, 2**37).map(lambda n: n * 512), min_size=1
)


@given(st.lists(amounts, min_size=1, max_size=3))
def test_any_amounts_are_drawn_as_they_are(parts: list[dict[str, int]]) -> None:
    cells = [
        Cell(
            key=f"c{row}",
            record=Record.model_validate(
                {
                    "id": str(row),
                    "status": "ok",
                    "source": "measured",
                    "spec": {},
                    "memory": {"peak_allocated": sum(part.values()), "at_peak": part},
                }
            ),
            model="m",
            device="cpu",
            name=f"method {row}",
            short=f"method {row}",
            method=f"method {row}",
            workload="batch 1 × 1",
        )
        for row, part in enumerate(parts)
    ]
    axes = axes_of(figures.breakdown(cells))
    check_stack(axes, cells, categories_of(cells))
    assert not axes.collections  # a CPU has no capacity


def inline(panel: Sequence[Cell]) -> ET.Element:
    return ET.fromstring(svg.inline(figures.breakdown(panel), "figure-1"))


def test_svg_keeps_every_visible_bar_with_its_bytes(panel: list[Cell]) -> None:
    held = {
        (cell.key, name): str(nbytes)
        for cell in panel
        for name, nbytes in cell.memory.at_peak.items()
        if nbytes
    }
    found = {
        (element.attrib["data-cell"], element.attrib["data-category"]): element.attrib["data-bytes"]
        for element in inline(panel).iter()
        if "data-category" in element.attrib
    }
    assert found == held


def test_svg_bars_are_as_long_as_their_bytes(panel: list[Cell]) -> None:
    root = inline(panel)
    drawn = []
    for element in root.iter():
        if "data-category" not in element.attrib:
            continue
        start, end = re.match(r"M([\d.]+) [\d.]+(?:H([\d.]+))?V", element.attrib["d"]).groups()  # type: ignore[union-attr]
        drawn.append((float(end or start) - float(start), int(element.attrib["data-bytes"])))
    length, nbytes = max(drawn)
    assert length > 50
    for other, size in drawn:
        assert other == pytest.approx(size * length / nbytes, abs=0.03)


def test_svg_notes_belong_to_what_they_are_about(panel: list[Cell]) -> None:
    root = inline(panel)
    assert not [child for child in root if child.tag.endswith("title")]
    parents = [parent for parent in root.iter() if any(c.tag.endswith("title") for c in parent)]
    assert len(parents) == len([item for item in root.iter() if item.tag.endswith("title")])
    shown = {parent[0].text: parent.text for parent in parents if parent.tag.endswith("text")}
    assert shown == {cell.name: shorten(cell.short, NAME_CHARACTERS) for cell in panel}


def test_svg_has_only_the_page_s_colours_and_fonts(panel: list[Cell]) -> None:
    known = {role.css for role in palette.roles()}
    for element in inline(panel).iter():
        style = element.get("style", "")
        assert "font-family" not in style
        assert "DejaVu" not in style
        bare = style
        for css in known:
            bare = bare.replace(css, "")
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b", bare), style


def test_svg_has_a_text_alternative_and_no_strangers(panel: list[Cell]) -> None:
    root = inline(panel)
    assert root.attrib["role"] == "img"
    for cell in panel:
        assert cell.short in root.attrib["aria-label"]
    assert "simulated" in root.attrib["aria-label"]
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not names & {"script", "style", "metadata", "image", "foreignObject", "a"}


def test_ids_differ_between_figures_and_references_hold(panel: list[Cell]) -> None:
    ids = []
    for ident in ("a", "b"):
        root = ET.fromstring(svg.inline(figures.breakdown(panel), ident))
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        text = ET.tostring(root, encoding="unicode")
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(own)
        ids += own
    assert len(set(ids)) == len(ids)


def test_a_dollar_in_a_name_is_a_dollar(record: RecordFactory) -> None:
    odd = record()
    odd.spec["method"]["label"] = "$x_$ \\frac{"
    drawing = figures.breakdown(arrange([odd]))
    assert "$x_$" in svg.inline(drawing, "f")
