"""Studies: Python files that return the cells of a table. Found by name or by path.

A study defines `study(quick: bool = False) -> list[RunSpec]`; the first line of its docstring is
its title. `BASELINE`, if it has one, is the method that its page compares the others with.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import ProfilerError, UsageError, unknown
from profiler.spec import RunSpec

#: The study that runs when nothing is named.
DEFAULT = "opt_6_7b"


@dataclass(frozen=True)
class Study:
    """A study as it was found: its name, title and cells, and its baseline's method, if named."""

    name: str
    title: str
    cells: list[RunSpec]
    baseline: str = ""


def folder() -> Path:
    """Where the studies lie: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "experiments"
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return package / "experiments"


def names() -> list[str]:
    """Names of the shipped studies."""
    return sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_"))


def load(study: str, *, quick: bool = False) -> Study:
    """The study of that name, or of the .py file at that path.

    Raises:
        UsageError: there is none, or it does not return a list of RunSpec.
    """
    path = _find(study)
    module_spec = importlib.util.spec_from_file_location(f"profiler_study_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, "study"):
            raise UsageError("defines no function study(quick)")
        cells = module.study(quick=quick)
    except ProfilerError as error:
        raise UsageError(f"study {study}: {error}") from None
    except Exception as error:  # the file is the user's: whatever it raises is said in one line
        raise UsageError(f"study {study}: {type(error).__name__}: {error}") from None
    if not isinstance(cells, list) or not all(isinstance(cell, RunSpec) for cell in cells):
        raise UsageError(f"study {study}: study() must return a list of RunSpec")
    if not cells:
        raise UsageError(f"study {study}: study() returned no cell")
    baseline = getattr(module, "BASELINE", "")
    if not isinstance(baseline, str):
        raise UsageError(f"study {study}: BASELINE must be a method's name, not {baseline!r}")
    title = (module.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return Study(path.stem, title or path.stem, list(dict.fromkeys(cells)), baseline)


def _find(study: str) -> Path:
    if study.endswith(".py"):
        path = Path(study)
        if not path.is_file():
            raise UsageError(f"no study at {study}")
        return path
    known = names()
    if study not in known:
        raise unknown("study", study, known, hint=" (or give the path of a .py file)")
    return folder() / f"{study}.py"
