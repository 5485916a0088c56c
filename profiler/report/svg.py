"""A matplotlib figure as SVG that lives inside the page: themed, labelled, nothing from outside."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from profiler.report import palette
from profiler.report.text import clean

if TYPE_CHECKING:
    from profiler.report.figures import Drawing

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
# `font: 8.5px 'DejaVu Sans', ...` and `font-family: ...`: the page's own font is used.
_FONT = re.compile(r"font:\s*(?P<size>[\d.]+px)[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?")
_DECIMALS = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline(drawing: Drawing, ident: str) -> str:
    """The drawing as an `<svg>` element for an HTML page.

    Colours become the page's CSS variables (so both themes work), ids get the prefix `ident` (so
    several figures share a page), text stays text, and everything that comes from a record has
    passed the XML writer, which escapes it.

    Args:
        drawing: figure, notes and label.
        ident: unique in the page; letters, digits and `-`.
    """
    import matplotlib as mpl

    ET.register_namespace("", _SVG)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "profiler"}):
        drawing.figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    root = ET.fromstring(buffer.getvalue())
    _strip(root)
    referenced = _referenced(root)
    for element in root.iter():
        _restyle(element)
        _annotate(element, drawing)
        _rename(element, ident, referenced)
        _shrink(element)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    width = float(root.attrib["viewBox"].split()[2])
    root.set("class", "figure")
    # The natural size: text is then as large as the page's small print.
    root.set("style", f"max-width: {width * 4 / 3 * 1.12:.0f}px")
    root.set("role", "img")
    root.set("aria-label", clean(drawing.label))
    return ET.tostring(root, encoding="unicode")


def _strip(root: ET.Element) -> None:
    """Metadata (it names hosts) and the style sheet (it would hold for the whole page) go."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)


def _restyle(element: ET.Element) -> None:
    style = element.get("style")
    if style is None:
        return
    style = _FAMILY.sub("", _FONT.sub(r"font-size: \g<size>", style))
    variables = {role.light: role.css for role in palette.roles()}
    element.set(
        "style",
        _COLOUR.sub(lambda match: variables.get(match[0].lower(), "currentColor"), style),
    )


def _annotate(element: ET.Element, drawing: Drawing) -> None:
    note = drawing.notes.get(element.get("id", ""))
    if note is None:
        return
    title = ET.Element(f"{{{_SVG}}}title")
    title.text = clean(note.title)
    element.insert(0, title)
    for name, value in note.data.items():
        element.set(f"data-{name}", clean(value))


def _referenced(root: ET.Element) -> set[str]:
    """The ids that something in the figure refers to; the others need not be in the page."""
    found: set[str] = set()
    for element in root.iter():
        found.add(element.get(f"{{{_XLINK}}}href", "").removeprefix("#"))
        for name in ("clip-path", "style"):
            found.update(_REFERENCE.findall(element.get(name, "")))
    return found


def _rename(element: ET.Element, ident: str, referenced: set[str]) -> None:
    name = element.attrib.pop("id", None)
    if name in referenced:
        element.set("id", f"{ident}-{name}")
    link = element.attrib.pop(f"{{{_XLINK}}}href", None)
    if link is not None:
        element.set("href", f"#{ident}-{link.removeprefix('#')}")
    for name in ("clip-path", "style"):
        if name in element.attrib:
            element.set(name, _REFERENCE.sub(rf"url(#{ident}-\1)", element.attrib[name]))


def _shrink(element: ET.Element) -> None:
    """A hundredth of a point is enough, and indentation is nothing to see."""
    if "d" in element.attrib:
        path = _DECIMALS.sub(lambda match: f"{float(match[0]):.2f}", element.attrib["d"])
        element.set("d", " ".join(path.split()))
    if element.text is not None and not element.text.strip():
        element.text = None
    element.tail = "\n"
