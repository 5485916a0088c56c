"""Templates that escape and clean all that they print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def environment(*packages: str) -> jinja2.Environment:
    """An environment over the packages' `templates/`; the first that has a template gives it."""
    import jinja2
    from markupsafe import Markup

    from profiler.report import interactive
    from profiler.report.text import breakable, clean

    class Script(Markup):
        """What a script element holds, to the letter: the page's policy knows it by its hash."""

    def scripts(drawn: bool) -> list[Markup]:
        """The page's scripts; without charts, those of the tables alone."""
        names = interactive.SCRIPTS if drawn else interactive.SCRIPTS[1:]
        found = [interactive.library()] if drawn else []
        return [Script(one) for one in (*found, *map(interactive.script, names))]

    def printable(value: Any) -> Any:
        if isinstance(value, Script):
            return value
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
    made.filters["unescaped"] = Markup  # for JSON of `interactive.script_json`
    made.globals["scripts_of"] = scripts
    made.globals["hashes_of"] = interactive.hashes
    made.globals["chart_themes"] = interactive.themes
    return made
