"""Profiles parameter-efficient fine-tuning: where every byte, FLOP and microsecond of a step goes.

The public names are loaded when they are first used, so that `import profiler` stays cheap.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.execute import run as run
    from profiler.integrations.live import profile as profile
    from profiler.integrations.trainer import TrainerCallback as TrainerCallback
    from profiler.integrations.watch import watch as watch
    from profiler.record import Record as Record
    from profiler.resolve import resolve as resolve
    from profiler.spec import RunSpec as RunSpec

__version__ = "0.1.0"

_HOMES = {
    "Record": "profiler.record",
    "RunSpec": "profiler.spec",
    "TrainerCallback": "profiler.integrations.trainer",
    "profile": "profiler.integrations.live",
    "resolve": "profiler.resolve",
    "run": "profiler.execute",
    "watch": "profiler.integrations.watch",
}

__all__ = [
    "Record",
    "RunSpec",
    "TrainerCallback",
    "__version__",
    "profile",
    "resolve",
    "run",
    "watch",
]


class _Package(ModuleType):
    """Keeps `profiler.resolve` the function: an import of the submodule would bind that there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
