"""Optimizers by name: how each is built and what it keeps. Importing this imports no torch."""

from profiler.subject.optimizers import adafactor, bitsandbytes, lora, native
from profiler.subject.optimizers.registry import approximations, build, check, names, prepare
from profiler.subject.optimizers.state import maps, states, uses_maps, warm_up

__all__ = [
    "approximations",
    "build",
    "check",
    "maps",
    "names",
    "prepare",
    "states",
    "uses_maps",
    "warm_up",
]

# Imported for their registrations.
del adafactor, bitsandbytes, lora, native
