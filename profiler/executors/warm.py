"""Imported by the fork server only: what every worker needs, imported once for all of them."""

from __future__ import annotations

import os

from profiler.noise import hush

# Asking for GPUs through CUDA itself would leave the forked workers without a usable CUDA.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
hush()

import bitsandbytes  # noqa: E402, F401
import peft  # noqa: E402, F401
import torch  # noqa: E402

import profiler.bench.simulated  # noqa: E402
import profiler.execute  # noqa: E402
import profiler.subject.subject  # noqa: E402, F401

# One thread: simulated cells compute next to nothing, and a thread pool does not survive a fork.
torch.set_num_threads(1)
