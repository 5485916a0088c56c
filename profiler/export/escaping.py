r"""Text from records in LaTeX and in Markdown: what it says, and never markup.

>>> print(latex("50 % of a_b"))
50 \% of a\_b
>>> print(markdown("a|b"))
a\|b
"""

from __future__ import annotations

import re

from profiler.report.text import clean

#: Brackets and stars in braces: after a `\\` they would be its arguments.
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "#": r"\#",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{EN DASH}": r"\textendash{}",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{REPLACEMENT CHARACTER}": "?",
}

#: ASCII punctuation that begins something in GitHub's Markdown, inside a line.
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&!$#])")

#: Two dashes would become one long one, two commas a quotation mark.
_LIGATURES = re.compile("--+|,,+")


def latex(text: str) -> str:
    """`text` on one line, for running text and table cells."""
    plain = _line(text)
    escaped = "".join(_LATEX.get(letter, letter) for letter in _LIGATURES.sub(_apart, plain))
    return escaped.replace("\x00", "{}")


def markdown(text: str) -> str:
    """`text` on one line, for a cell of a table."""
    return _MARKDOWN.sub(r"\\\1", _line(text))


def _apart(letters: re.Match[str]) -> str:
    return "\x00".join(letters.group())


def _line(text: str) -> str:
    return " ".join(clean(text).split())
