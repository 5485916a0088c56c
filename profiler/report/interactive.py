"""Charts that a reader explores: Vega-Lite specifications made by Altair, drawn without a network.

The page holds the drawing library once. It interprets expressions (`ast`), so that the page's
policy need not allow code made from text. Colours of text and lines follow the page's theme; those
of categories and phases are the same in both (`profiler.report.palette`).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from profiler.report import palette

if TYPE_CHECKING:
    import altair as alt

#: A chart's width where there is room; narrower windows make it narrower.
WIDTH = 760

#: All that the page's scripts call of the library.
_GLOBALS = "window.vegaEmbed = vegaEmbed;"

#: What runs in the page beside the library, in the order of the page.
SCRIPTS = ("charts.js", "tables.js")


@dataclass(frozen=True, slots=True)
class Chart:
    """One interactive chart. `spec` is Vega-Lite as plain data, `label` its text alternative,
    `sources` where its figures come from, `legend` words and their colours."""

    id: str
    caption: str
    spec: dict[str, Any]
    label: str
    sources: tuple[str, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def data(self) -> str:
        """The specification as JSON that no HTML parser ends early."""
        return script_json(self.spec)


def chart(
    id: str,
    caption: str,
    drawn: alt.TopLevelMixin,
    *,
    label: str,
    sources: Sequence[str] = (),
    legend: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> Chart:
    """A chart of the page from Altair's."""
    spec = drawn.to_dict()
    return Chart(id, caption, spec, label, tuple(sources), tuple(legend), tuple(notes))


def script_json(value: Any) -> str:
    """JSON to stand in a script element: what HTML would read as markup is written as escapes."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed in one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(_GLOBALS)
    assert "</script" not in bundle.lower()
    return bundle


@functools.cache
def script(name: str) -> str:
    """One of the page's own scripts."""
    return (files("profiler.report") / "templates" / name).read_text(encoding="utf-8")


def themes() -> str:
    """Vega's configuration for both of the page's themes, as JSON."""
    return script_json({theme: _config(theme) for theme in ("light", "dark")})


def hashes(scripts: Sequence[str]) -> str:
    """The sources that a page's policy allows: these scripts, by their content."""
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()) for one in scripts)
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests)


def _config(theme: str) -> dict[str, Any]:
    def colour(role: palette.Role) -> str:
        return str(getattr(role, theme))

    text = {"labelColor": colour(palette.MUTED), "titleColor": colour(palette.TEXT)}
    return {
        "background": colour(palette.PAGE),
        "font": "system-ui, sans-serif",
        "axis": {
            **text,
            "gridColor": colour(palette.RULE),
            "domainColor": colour(palette.EDGE),
            "tickColor": colour(palette.EDGE),
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 220,
        },
        "legend": {**text, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 260},
        "text": {"color": colour(palette.TEXT), "fontSize": 12},
        "rule": {"color": colour(palette.EDGE)},
        "point": {"color": colour(palette.series_role(0)), "stroke": colour(palette.EDGE)},
        "bar": {"color": colour(palette.series_role(0))},
        "line": {"color": colour(palette.series_role(0))},
        "view": {"stroke": None},
    }
