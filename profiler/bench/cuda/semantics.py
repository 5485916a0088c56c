"""All that makes a run on fake CPU tensors the run of a CUDA device, as one context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from profiler.bench import products, sparse
from profiler.bench.cuda import autocast, bitsandbytes, flash_attention_2, functions, lora_fa
from profiler.bench.cuda.bitsandbytes import paged_state
from profiler.bench.cuda.kernels import REPLACE
from profiler.bench.cuda.temporaries import INSIDE
from profiler.bench.cuda.workspaces import on_op
from profiler.bench.tracker import Rules
from profiler.hardware.devices import Device
from profiler.spec import RunSpec
from profiler.trace import Trace

__all__ = ["paged_state", "semantics"]

#: Said of every simulated GPU.
APPROXIMATIONS = (
    "The sort inside the embedding's and the index ops' backward is counted roughly.",
    "Memory that the memory-efficient and cuDNN attention kernels take inside their backward is "
    "not counted.",
)


@contextmanager
def semantics(device: Device, spec: RunSpec, trace: Trace) -> Iterator[Rules]:
    """The rules for the tracker, with torch's functions replaced while the context lasts."""
    capability = device.compute_capability
    trace.approximations.extend(APPROXIMATIONS)
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
            replace={**REPLACE, **products.REPLACE, **sparse.REPLACE, **bitsandbytes.replace()},
            inside={**INSIDE, **bitsandbytes.inside(device)},
            on_op=on_op(capability),
            host_scalars=True,
        )
