"""Fine-tuning methods, one file per family; importing this package registers every file in it."""

from __future__ import annotations

import importlib
import pkgutil

from profiler.subject.methods.registry import Method, get, names, register

__all__ = ["Method", "get", "names", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
