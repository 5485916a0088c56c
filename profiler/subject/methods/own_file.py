"""A user's own method: a class in a Python file that the command line names."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from profiler.errors import UsageError
from profiler.subject.methods.registry import Method


def load(path: Path, name: str) -> tuple[Method, str]:
    """The method `name` of a file, and the SHA-256 of the file.

    Raises:
        UsageError: there is no such file or class, it is no `Method`, or the file cannot be run.
    """
    if not name.isidentifier():
        raise UsageError(f"--method {path}: name the class, as {path}:MyMethod")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--method: cannot read {str(path)!r}: {error.strerror}") from None
    digest = hashlib.sha256(text).hexdigest()
    cls = getattr(_run(path.resolve(), digest), name, None)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UsageError(
            f"--method: {str(path)!r} has no class {name} that derives from "
            "profiler.subject.methods.Method"
        )
    return cls(), digest


@functools.cache
def _run(path: Path, digest: str) -> ModuleType:
    """The file as a module; run once as long as it does not change."""
    name = f"_own_method_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = " ".join(str(error).split())
        raise UsageError(
            f"--method: running {path.name} fails: {type(error).__name__}: {reason}"
        ) from None
    return module
