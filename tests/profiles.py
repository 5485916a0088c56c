"""A device profile of a machine that never was, with rates that are easy to reckon with."""

from __future__ import annotations

import itertools
from typing import Any

from profiler.hardware.device_profile import DeviceProfile

#: FLOP/s of every product, bytes/s of every kernel, seconds of the host for an op of any phase.
RATE = 1e11
BANDWIDTH = 1e10
HOST = 1e-5
#: Seconds for a byte that the system gives anew.
FAULT = 1e-9

SIZES = (4, 64, 1024)
BYTES = (1 << 12, 1 << 20, 1 << 26)


def content(**changes: Any) -> dict[str, Any]:
    """The profile as JSON values."""
    products = [
        {
            "op": op,
            "dtype": dtype,
            "layout": layout,
            "batch": 1,
            "m": m,
            "n": n,
            "k": k,
            "seconds": 2 * m * n * k / RATE,
        }
        for op, layout in (("mm", "nn"), ("mm", "nt"), ("mm", "tn"), ("bmm", "nn"))
        for dtype in ("float32", "bfloat16")
        for m, n, k in itertools.product(SIZES, repeat=3)
    ]
    kernels = [
        {"op": op, "dtype": dtype, "points": [(size, size / BANDWIDTH) for size in BYTES]}
        for op in ("aten.mul", "aten.add")
        for dtype in ("float32", "bfloat16")
    ]
    name = "aten._scaled_dot_product_flash_attention_for_cpu"
    return {
        "schema": 1,
        "kind": "cpu",
        "name": "Abacus",
        "threads": 1,
        "clock": "process_time",
        "statistic": "lower quartile",
        "quick": False,
        "seconds": 1.0,
        "environment": {"torch": "2.13.0"},
        "products": products,
        "kernels": kernels,
        "attention": [
            {"op": name, "dtype": "float32", "intensity": at, "flops": 1000, "seconds": 1e-6}
            for at in (8.0, 64.0)
        ],
        "copies": [{"nbytes": 1 << 20, "seconds": 2 * (1 << 20) / BANDWIDTH}],
        "host": {"forward": HOST, "backward": HOST, "optimizer": HOST, "tensor": HOST},
        "fault": FAULT,
        **changes,
    }


def profile(**changes: Any) -> DeviceProfile:
    """A valid profile."""
    return DeviceProfile.model_validate(content(**changes))
