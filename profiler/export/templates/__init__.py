"""The templates of printed tables, and what renders them."""

from __future__ import annotations

from typing import Any

from profiler.export import escaping


def render(name: str, **content: Any) -> str:
    """A template of this folder with its content. Braces are LaTeX's: values stand in << >>."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profiler.export"),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["latex"] = escaping.latex
    environment.filters["markdown"] = escaping.markdown
    return environment.get_template(name).render(**content)
