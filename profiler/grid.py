"""Cells of a sweep: the cartesian product that repeated flags span, and the choice among cells."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from profiler.errors import UsageError
from profiler.spec import RunSpec

#: Fields that every label shows, in this order; others are shown where they differ from a default.
_ALWAYS = ("model", "method", "device", "batch_size", "seq_len")

_GRID = {item.name for item in dataclasses.fields(RunSpec) if item.metadata.get("grid")}
#: What tells a table's rows apart besides the method.
_SHOWN = (_GRID | {"device"}) - {"method"}
_DEFAULTS = {item.name: item.default for item in dataclasses.fields(RunSpec)}


def spans(name: str) -> bool:
    """Whether the field may have several values in one sweep."""
    return name in _GRID


def span(fields: Mapping[str, Any]) -> list[RunSpec]:
    """The cells of the cartesian product of `fields`, in the fields' order, without duplicates.

    Args:
        fields: A value for each field that is given, for a field that spans the grid a sequence
            of values. The last field varies fastest.

    Raises:
        UsageError: a value is not one of its field's.
    """
    return _distinct(RunSpec(**choice) for choice in _product(fields))


def override(specs: Iterable[RunSpec], fields: Mapping[str, Any]) -> list[RunSpec]:
    """Every cell with `fields` (as in `span`) put in place of its own, without duplicates."""
    choices = list(_product(fields))
    return _distinct(spec.replace(**choice) for spec in specs for choice in choices)


def label(spec: RunSpec) -> str:
    """What names a cell on one line: `opt-6.7b lora:r=8 rtx-4090 1x512 stack=script`."""
    words = [spec.model, spec.method, spec.device, f"{spec.batch_size}x{spec.seq_len}"]
    for name, default in _DEFAULTS.items():
        value = getattr(spec, name)
        if name in _ALWAYS or value == default:
            continue
        text = "+".join(value) if isinstance(value, tuple) else str(value)
        words.append(f"{name.replace('_', '-')}={text}")
    return " ".join(words)


def varying(specs: Sequence[RunSpec]) -> list[str]:
    """The fields with a place in a table that differ among `specs`."""
    return [
        item.name
        for item in dataclasses.fields(RunSpec)
        if item.name in _SHOWN and len({getattr(one, item.name) for one in specs}) > 1
    ]


def matching(expression: str, specs: Iterable[RunSpec]) -> list[RunSpec]:
    """The cells whose label fits a filter.

    An expression is made of words, `not`, `and`, `or` and parentheses; words in a row must all
    appear. A word appears whole, in any case: `lora` finds `lora:r=8`, not `qlora`, and `4090`
    finds `rtx-4090`. One with spaces or parentheses stands in quotes.

    Raises:
        UsageError: the expression cannot be read.
    """
    fits = filter_of(expression)
    return [spec for spec in specs if fits(label(spec))]


def filter_of(expression: str) -> Callable[[str], bool]:
    """A filter as a test of labels; `matching` says what it may hold."""
    fits = _parse(expression)
    return lambda text: fits(text.lower())


def _product(fields: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    lists = [value if spans(name) else [value] for name, value in fields.items()]
    return (dict(zip(fields, values, strict=True)) for values in itertools.product(*lists))


def _distinct(specs: Iterable[RunSpec]) -> list[RunSpec]:
    return list(dict.fromkeys(specs))


_Test = Callable[[str], bool]
_TOKEN = re.compile(r"""\s*(\(|\)|"[^"]*"|'[^']*'|[^\s()"']+|["'])""")
_KEYWORDS = ("and", "or", "not", ")")


def _parse(expression: str) -> _Test:
    tokens = _TOKEN.findall(expression)
    if len(tokens) > 200:
        raise UsageError(f"--filter has {len(tokens)} words and signs; 200 are enough")
    parser = _Parser(expression, tokens)
    test = parser.alternatives()
    if parser.tokens:
        raise parser.error(f"nothing opens the {parser.tokens[0]!r}")
    return test


class _Parser:
    """Recursive descent over `any of (all of (not) word or group)`."""

    def __init__(self, expression: str, tokens: Sequence[str]) -> None:
        self.expression = expression
        self.tokens = list(tokens)

    def error(self, reason: str) -> UsageError:
        return UsageError(
            f"--filter {self.expression!r}: {reason}; "
            "write words, not, and, or, parentheses, as in 'lora and not (qlora or r=64)'"
        )

    def alternatives(self) -> _Test:
        tests = [self.conjunction()]
        while self.tokens and self.tokens[0] == "or":
            self.tokens.pop(0)
            tests.append(self.conjunction())
        return lambda text: any(test(text) for test in tests)

    def conjunction(self) -> _Test:
        tests = [self.term()]
        while self.tokens and self.tokens[0] not in ("or", ")"):
            if self.tokens[0] == "and":
                self.tokens.pop(0)
            tests.append(self.term())
        return lambda text: all(test(text) for test in tests)

    def term(self) -> _Test:
        if not self.tokens:
            raise self.error("a word is missing at the end" if self.expression.strip() else "empty")
        token = self.tokens.pop(0)
        if token == "not":
            negated = self.term()
            return lambda text: not negated(text)
        if token == "(":
            inner = self.alternatives()
            if not self.tokens:
                raise self.error("a ')' is missing")
            self.tokens.pop(0)
            return inner
        if token in _KEYWORDS:
            raise self.error(f"a word is missing before {token!r}")
        if token in ('"', "'"):
            raise self.error("a quotation mark is not closed")
        word = (token[1:-1] if token[0] in "\"'" else token).lower()
        whole = re.compile(rf"(?:(?<!\w)|(?!\w)){re.escape(word)}(?:(?!\w)|(?<!\w))")
        return lambda text: whole.search(text) is not None
