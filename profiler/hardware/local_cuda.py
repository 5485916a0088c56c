"""Whether a CUDA device can be used here, found without importing torch."""

from __future__ import annotations

import functools
import importlib.util
import os
import runpy
from pathlib import Path


def missing() -> str:
    """What is missing for a run on a CUDA device, "" if nothing is.

    A driver that answers can still refuse the run; then the run says so.
    """
    if not _torch_is_built_for_cuda():
        return "the installed torch is built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every device"
    if not (_driver_has_devices() or Path("/dev/nvidia0").exists()):
        return "no NVIDIA driver with a device answers"
    return ""


@functools.cache
def _torch_is_built_for_cuda() -> bool:
    """As torch's own version file says, which imports nothing else of torch."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return False
    try:
        version = runpy.run_path(str(Path(found.submodule_search_locations[0], "version.py")))
    except OSError:
        return True  # an unusual build: let torch itself answer
    return bool(version.get("cuda"))


def _driver_has_devices() -> bool:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no permission
        return False
    try:
        return bool(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return False
    finally:
        pynvml.nvmlShutdown()
