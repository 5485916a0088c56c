"""Text from elsewhere, made fit for one line of a terminal."""

from __future__ import annotations


def one_line(text: str) -> str:
    r"""`text` with line breaks, control characters and bytes that are no text as escapes.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
