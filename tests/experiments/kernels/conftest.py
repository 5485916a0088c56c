from __future__ import annotations

import importlib.util
import os

# Triton is for Linux alone. Where it should be, as in CI, a missing one is no reason to skip.
if importlib.util.find_spec("triton") is None and not os.environ.get("CI"):
    collect_ignore_glob = ["test_*.py"]
