"""`python -m profiler.calibrate`: measure this machine's ceilings and write a device profile.

The table (or the profile as JSON) goes to stdout, progress to stderr, the profile to --output.
`python -m profiler.sweep --device sim:cpu --calibration FILE` predicts times from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import profiler
from profiler import command, stdout
from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.hardware.device_profile import DeviceProfile

FORMATS = ("table", "json")
DEVICES = ("cpu", "cuda")


_COMMAND = command.Command("profiler.calibrate", interrupted="interrupted; no profile is written")


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = command.Parser(
        prog="profiler.calibrate",
        usage="python -m profiler.calibrate [flags]",
        description="Measure what this machine reaches (matrix products by shape and type, "
        "kernels and copies by size, attention, what the host adds to an op) and write it to a "
        "device profile, from which --calibration predicts times. Let nothing else run meanwhile.",
        epilog="Exit status: 0, the profile is written; 1, it is not; 2, wrong usage; "
        "130, interrupted.",
        allow_abbrev=False,
    )
    result.add_argument(
        "--device", choices=DEVICES, default="cpu",
        help="what is measured: this machine's processor or its GPU (default: cpu)",
    )  # fmt: skip
    result.add_argument(
        "--output", type=Path, default=Path("calibration.json"), metavar="FILE",
        help="where the profile is written (default: calibration.json)",
    )  # fmt: skip
    result.add_argument(
        "--threads", type=_threads, metavar="N",
        help="threads that torch computes with on the CPU, the same as in the runs to predict "
        "(default: torch's, which OMP_NUM_THREADS sets)",
    )  # fmt: skip
    result.add_argument(
        "--format", choices=FORMATS, default="table",
        help="what stands on stdout: what was measured in short, or the profile (default: table)",
    )  # fmt: skip
    for flag, text in (
        ("--quick", "few small sizes, in seconds: to try it, not for figures"),
        ("--quiet", "no progress on stderr"),
    ):
        result.add_argument(flag, action="store_true", help=text)
    result.add_argument("--version", action="version", version=f"profiler {profiler.__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2 or 130."""
    return _COMMAND.run(_calibrate, arguments)


def _calibrate(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.output.is_dir():
        raise UsageError(f"--output {options.output} is a folder; name a file")
    if options.device == "cuda":
        if options.threads is not None:
            raise UsageError("--threads is the CPU's; leave it out with --device cuda")
        from profiler.hardware import local_cuda

        missing = local_cuda.missing()
        if missing:
            raise UsageError(f"--device cuda measures this machine's GPU, but {missing}")
    from profiler.noise import hush

    hush()
    profile = _measured(options)
    profile.write(options.output)
    stdout.to_stdout(lambda: _show(profile, options.format))
    if options.format == "table":
        stdout.to_stdout(lambda: print(f"profile: {options.output}"))
    elif not options.quiet:
        _COMMAND.say(f"profile: {options.output}")
    return 0


def _measured(options: argparse.Namespace) -> DeviceProfile:
    def part(name: str) -> None:
        if not options.quiet:
            _COMMAND.say(f"{name} ...")

    if options.device == "cuda":
        from profiler.calibration import cuda

        return cuda.calibrate(quick=options.quick, part=part)
    import torch

    from profiler.calibration import cpu

    threads = options.threads or torch.get_num_threads()
    return cpu.calibrate(threads=threads, quick=options.quick, part=part)


def _show(profile: DeviceProfile, format: str) -> None:
    if format == "json":
        print(profile.to_json())
        return
    from profiler.calibration import shown

    print(shown.text(profile, sys.stdout), end="")


def _threads(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return number


if __name__ == "__main__":
    command.start(main)
