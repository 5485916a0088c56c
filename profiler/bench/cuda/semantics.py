"""All that makes a run on fake CPU tensors the run of a CUDA device, as one context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from profiler.bench import products, sparse
from profiler.bench.cuda import (
    autocast,
    bitsandbytes,
    flash_attention_2,
    functions,
    lora_fa,
    temporaries,
)
from profiler.bench.cuda.bitsandbytes import leave_packed, paged_state
from profiler.bench.cuda.kernels import ON_HOST, REPLACE
from profiler.bench.cuda.notes import noting
from profiler.bench.cuda.workspaces import on_op
from profiler.bench.tracker import Rules
from profiler.hardware.devices import Device
from profiler.spec import RunSpec
from profiler.trace import Trace

__all__ = ["leave_packed", "paged_state", "semantics"]


@contextmanager
def semantics(device: Device, spec: RunSpec, trace: Trace) -> Iterator[Rules]:
    """The rules for the tracker, with torch's functions replaced while the context lasts."""
    capability = device.compute_capability
    with ExitStack() as stack:
        stack.enter_context(functions.replaced(capability, spec.sdpa_backend))
        stack.enter_context(flash_attention_2.installed())
        if spec.quantization == "int8":
            stack.enter_context(bitsandbytes.int8_products())
            trace.approximations.append(bitsandbytes.NO_OUTLIERS)
        stack.enter_context(lora_fa.autocasting())
        if spec.autocast != "none":
            stack.enter_context(autocast.installed())
        yield Rules(
            replace={**REPLACE, **sparse.REPLACE, **bitsandbytes.replace()},
            check=products.CHECK,
            inside={**temporaries.inside(device), **bitsandbytes.inside(device)},
            result_first=temporaries.RESULT_FIRST,
            on_op=noting(trace, on_op(capability)),
            host=True,
            on_host=ON_HOST,
            cache_bytes=device.l2_bytes,
        )
