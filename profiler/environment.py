"""What a run ran on: library versions, machine, and the fingerprint under which it is stored."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import profiler

#: Distributions whose version can change a figure.
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")

#: Parts of the package that cannot change a figure, so that an edit there keeps the records valid.
_AROUND = frozenset(
    (
        *("calibration", "executors", "experiments", "export", "integrations", "report"),
        "validation",
        *(
            "calibrate.py",
            "checkouts.py",
            "diff.py",
            "diff_page.py",
            "diff_text.py",
            "dispatch.py",
            "files.py",
            "flags.py",
            "grid.py",
            "isolation.py",
            "lines.py",
            "locks.py",
            "noise.py",
            "other_python.py",
            "preflight.py",
            "runner.py",
            "stdout.py",
            "store.py",
            "studies.py",
            "trace_file.py",
        ),
        *("sweep.py", "terminal.py", "validate.py"),
    )
)

#: CPU features that decide which kernels (and so which temporaries) a library takes.
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "bf16", "sve")


def environment(device: str = "") -> dict[str, Any]:
    """The record's `environment`; read without importing any of the libraries.

    Args:
        device: The cell's device. For one that is this machine (`cpu`, `cuda`, `sim:cpu`) the
            fingerprint covers the CPU, the GPU and its driver too.
    """
    found = _environment().copy()
    found["fingerprint"] = _fingerprint(found, decisive(device))
    return found


def decisive(device: str) -> tuple[str, ...]:
    """The keys of an environment that can change a figure on this device."""
    keys: tuple[str, ...] = ("profiler", "profiler_sources", *LIBRARIES)
    if device in ("cpu", "cuda", "sim:cpu"):
        keys += ("python", "cpu", "cpu_features", "device", "driver", "os")
    return keys


def _fingerprint(found: dict[str, Any], keys: Iterable[str]) -> str:
    """12 hex digits over what can change a figure."""
    text = "\n".join(f"{key}={found[key]}" for key in keys)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.cache
def _environment() -> dict[str, Any]:
    cpu, features = _cpu()
    device, driver = _gpu()
    return {
        "profiler": profiler.__version__,
        "profiler_sources": _sources(),
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "device": device,
        "driver": driver,
        "cpu": cpu,
        "cpu_features": features,
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sources() -> str:
    """12 hex digits over the code and the tables that make the figures: an edit to them between
    two releases must not be answered with a record from before it."""
    home = Path(profiler.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home)
        if name.parts[0] in _AROUND or path.suffix not in (".py", ".toml", ".json"):
            continue
        digest.update(
            f"{name.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode()
        )
    return digest.hexdigest()[:12]


def _cpu() -> tuple[str, list[str]]:
    """Model name and those of its features that matter here."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    return model, [name for name in _FEATURES if name in flags]


def _gpu() -> tuple[str | None, str | None]:
    """Name and driver version of the first GPU, None without one."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no permission: there is no GPU to name
        return None, None
    try:
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        return str(name), str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None, None
    finally:
        pynvml.nvmlShutdown()


def _commit() -> str | None:
    """The commit of the checkout this package lies in, `-dirty` with uncommitted changes."""
    checkout = Path(profiler.__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", os.fspath(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
