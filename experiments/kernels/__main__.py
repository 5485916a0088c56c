"""`python -m experiments.kernels`: check, compile and, on a GPU, time the kernels; draw the page.

Timing needs a CUDA device. No GPU has run that part yet.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from profiler import command, stdout
from profiler.errors import StoreError, UsageError
from profiler.files import replace_file

from . import page
from .occupancy import CAPABILITIES
from .results import Results

FILE = "kernels.json"


_COMMAND = command.Command("experiments.kernels", interrupted="interrupted")


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = command.Parser(
        prog="experiments.kernels",
        usage=f"python -m {__package__} [flags]",
        description="Check the Triton kernels in Triton's interpreter, compile them for GPUs that "
        "need not be there, time them where there is a CUDA device, and draw the page.",
        epilog="Exit status: 0, done; 1, a kernel is wrong or does not compile; 2, wrong usage; "
        "130, interrupted.",
        allow_abbrev=False,
    )
    result.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder of kernels.json and the page (default: reports/kernels; kernels-quick)",
    )  # fmt: skip
    result.add_argument("--quick", action="store_true", help="the smallest tiles, few cases")
    result.add_argument(
        "--render", action="store_true",
        help="run nothing: draw the page of the kernels.json in --output again",
    )  # fmt: skip
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2 or 130."""
    return _COMMAND.run(_run, arguments)


def _run(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    # A part never takes the place of the whole.
    name = "kernels-quick" if options.quick else "kernels"
    options.output = options.output or Path("reports", name)
    file = options.output / FILE
    if options.render:
        if not file.is_file():
            raise UsageError(f"no {FILE} in {options.output}; run the study into it first")
        results = Results.from_json(file.read_bytes())
    else:
        line = shlex.join(["python", "-m", str(__package__), *arguments])
        results = study(quick=options.quick, command=line)
        try:
            replace_file(file, results.to_json().encode("utf-8"))
        except OSError as error:
            raise StoreError(f"cannot write {file}: {error.strerror or error}") from None
    path = page.build(results, options.output)
    stdout.to_stdout(lambda: print("\n".join([*page.sentences(results), f"page: {path}"])))
    return 0 if all(one.worst <= 1 for one in results.checks) else 1


def study(*, quick: bool = False, command: str = "") -> Results:
    """All that the page shows.

    Raises:
        UsageError: there is no Triton.
        ProfilerError: a kernel does not compile.
    """
    if importlib.util.find_spec("triton") is None:
        raise UsageError(
            "the kernels need triton, which is not installed: pip install triton (Linux alone)"
        )
    from profiler.noise import hush

    hush()
    from . import checking, compiling, timing

    device = timing.device()
    cases = 4 if quick else 40
    checks = checking.check(cases=cases)
    if device:
        checks += checking.check(device="cuda", cases=cases)
    return Results(
        command=command,
        environment=environment(),
        builds=[
            compiling.build(variant, capability)
            for variant in compiling.variants(quick=quick)
            for capability in CAPABILITIES
        ],
        checks=checks,
        device=device,
        timings=timing.time_all(quick=quick) if device else [],
    )


def environment() -> dict[str, str]:
    """Versions of what compiled and checked."""
    from triton import knobs

    names = ("triton", "torch", "bitsandbytes", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    said = subprocess.run([knobs.nvidia.ptxas.path, "--version"], capture_output=True, text=True)
    lines = said.stdout.strip().splitlines()
    return {
        **found,
        "python": platform.python_version(),
        "ptxas": next((line for line in lines if "release" in line), "?"),
    }


if __name__ == "__main__":
    command.start(main)
