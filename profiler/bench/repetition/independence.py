"""Whether what a method puts into a layer can be told from that layer alone."""

from __future__ import annotations

import re
from typing import Any

from profiler.resolve import Cell

#: Names of modules that hold for every layer alike: no pattern, and no part that is a number.
_NAME = re.compile(r"(?!\d+(\.|$))[\w/-]+(\.(?!\d+(\.|$))[\w/-]+)*")

#: Says which library wrote a config.
_VERSION = "peft_version"


def layers_are_independent(cell: Cell) -> bool:
    """Whether all layers of one kind get the same from the method, however many there are.

    The method says so of itself (`Method.per_module`), and none of its options may single out
    layers: by numbers, by a pattern over paths, or by a table of them.
    """
    options = cell.config or {}
    return cell.method.method.per_module and all(
        key == _VERSION or _for_every_layer(value) for key, value in options.items()
    )


def _for_every_layer(value: Any) -> bool:
    if isinstance(value, str):
        return _NAME.fullmatch(value) is not None
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(isinstance(item, str) and _for_every_layer(item) for item in value)
    if isinstance(value, dict):
        return not value
    return value is None or isinstance(value, (bool, int, float))
