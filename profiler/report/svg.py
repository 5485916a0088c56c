"""A matplotlib figure as SVG that lives inside the page: themed, labelled, nothing from outside."""

from __future__ import annotations

import io
import itertools
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from profiler.report import palette
from profiler.report.text import clean

if TYPE_CHECKING:
    from profiler.report.canvas import Drawing

_SVG = "http://www.w3.org/2000/svg"
_GROUP = f"{{{_SVG}}}g"
_TITLE = f"{{{_SVG}}}title"
_USE = f"{{{_SVG}}}use"
_XLINK = "http://www.w3.org/1999/xlink"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
# `font: 8.5px 'DejaVu Sans', ...` and `font-family: ...`: the page's own font is used.
_FONT = re.compile(r"font:\s*(?P<size>[\d.]+px)[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?")
_DECIMALS = re.compile(r"-?\d+\.\d+")
_SPACES = re.compile(r"(?<=[:;])\s+|;(?=\s*;)")
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
    _flatten(root)
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
        element.set("d", _short_path(element.attrib["d"]))
    for name in ("x", "y"):
        if name in element.attrib and element.tag != _USE:
            element.set(name, _number(element.attrib[name]))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "style" in element.attrib:
        # Bars are rectangles: how their outlines are joined is the same everywhere.
        style = _SPACES.sub("", element.attrib["style"].replace("stroke-linejoin: miter", ""))
        element.set("style", style.strip(";"))
    if element.text is not None and not element.text.strip():
        element.text = None
    element.tail = None


def _short_path(path: str) -> str:
    """The same path with short numbers, and H and V for level and upright lines.

    >>> _short_path("M 5.90 19.512 L 48.5 19.512 L 48.5 33 L 5.90 33 L 5.90 19.512 z")
    'M5.9 19.51H48.5V33H5.9z'
    """
    parts: list[str] = []
    start, here = ("", ""), ("", "")
    words = path.split()
    place = 0
    while place < len(words):
        command, place = words[place], place + 1
        if command in ("M", "L"):
            point = _number(words[place]), _number(words[place + 1])
            place += 2
            closes = words[place : place + 1] == ["z"]
            if command == "M":
                start = point
                parts.append(f"M{point[0]} {point[1]}")
            elif closes and (point == start or point[0] == start[0] or point[1] == start[1]):
                # The closing line ends where the path began.
                if point != start:
                    parts.append(_line(here, point))
            elif point != here:
                parts.append(_line(here, point))
            here = point
        elif command == "z":
            parts.append("z")
        else:  # a curve: as it is
            return " ".join(_DECIMALS.sub(lambda match: _number(match[0]), path).split())
    return "".join(parts)


def _line(here: tuple[str, str], there: tuple[str, str]) -> str:
    if there[1] == here[1]:
        return f"H{there[0]}"
    if there[0] == here[0]:
        return f"V{there[1]}"
    return f"L{there[0]} {there[1]}"


def _number(text: str) -> str:
    """
    >>> _number("5.904"), _number("-0.001"), _number("12")
    ('5.9', '0', '12')
    """
    short = f"{float(text):.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def _flatten(parent: ET.Element) -> None:
    """Fewer elements that draw the same: a group of one is its element, a group that says nothing
    gives its elements to its parent, and neighbours of one style have it from a group of theirs.
    """
    children: list[ET.Element] = []
    for child in list(parent):
        parent.remove(child)
        if child.tag != _GROUP:
            children.append(child)
            continue
        _flatten(child)
        drawn = [item for item in child if item.tag != _TITLE]
        if not drawn:
            continue
        if not child.attrib and len(drawn) == len(child):
            children += list(child)
        elif len(drawn) == 1 and _can_take(drawn[0], child):
            (only,) = drawn
            only.attrib.update(child.attrib)
            for place, title in enumerate(item for item in child if item.tag == _TITLE):
                only.insert(place, title)
            children.append(only)
        else:
            children.append(child)
    parent.extend(_by_style(children))


def _can_take(element: ET.Element, group: ET.Element) -> bool:
    """Whether an element can stand for the group that holds nothing else."""
    if element.tag == _USE and "clip-path" in group.attrib:
        return False  # it would clip where the element is put, not where the group is
    has_title = any(item.tag == _TITLE for item in element)
    return not has_title and not set(element.attrib) & set(group.attrib)


def _by_style(elements: list[ET.Element]) -> list[ET.Element]:
    """The elements, in their order, those of one style in a row in a group that has it."""
    result: list[ET.Element] = []
    for style, run in itertools.groupby(elements, lambda item: item.get("style")):
        same = list(run)
        if style is None or len(same) < 2 or any(item.tag == _GROUP for item in same):
            result += same
            continue
        group = ET.Element(_GROUP, {"style": style})
        for item in same:
            del item.attrib["style"]
        group.extend(same)
        result.append(group)
    return result
