"""Templates that escape and clean all that they print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def environment(*packages: str) -> jinja2.Environment:
    """An environment over the packages' `templates/`; the first that has a template gives it."""
    import jinja2
    from markupsafe import Markup

    from profiler.report.text import breakable, clean

    def printable(value: Any) -> Any:
        # Filters such as `join` return Markup of what was not cleaned.
        if isinstance(value, Markup):
            return Markup(clean(value))
        return clean(value) if isinstance(value, str) else value

    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in packages]),
        autoescape=True,
        finalize=printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["breakable"] = breakable
    return made
