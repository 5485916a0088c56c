"""Strings from records, made safe to print. Escaping is the template's and the XML writer's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

# Control characters are not allowed in XML, lone surrogates not in UTF-8, and bidirectional
# overrides can make a name read as another one.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def clean(text: str) -> str:
    """`text` with every character that cannot be shown replaced.

    >>> clean("a" + chr(0) + "b")
    'a\N{REPLACEMENT CHARACTER}b'
    """
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def shorten(text: str, width: int) -> str:
    """`text` on one line in at most `width` characters; what differs is often at the end, so the
    middle gives way.

    >>> shorten("lora:r=64,target_modules=q_proj", 15)
    'lora:r=6…q_proj'
    """
    text = " ".join(clean(text).split())
    if len(text) <= width:
        return text
    tail = (width - 1) * 3 // 7
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def breakable(text: str) -> Markup:
    """`text` as HTML that may break a line where a method's options end.

    >>> breakable("a=1,<b>")
    Markup('a=<wbr>1,<wbr>&lt;b&gt;')
    """
    from markupsafe import Markup, escape

    parts = re.split("(?<=[,=&+:])", clean(text))
    return Markup("<wbr>").join(escape(part) for part in parts)


def listing(words: list[str]) -> str:
    """
    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
