"""bitsandbytes on a CUDA device: its fused 4-bit product, and optimizer state in paged memory."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from profiler.bench.tracker import StorageTracker
from profiler.hardware.devices import Device

#: Numbers from which on a paged optimizer pages a state (bitsandbytes/optim/optimizer.py,
#: `get_state_buffer`).
_PAGED_FROM = 1e5


def register_flops() -> None:
    """The 4-bit product's FLOPs: those of the product it stands for, 2 M N K."""
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    packet = getattr(torch.ops.bitsandbytes, "gemm_4bit", None)
    if packet is None or packet in flop_registry:
        return

    @register_flop_formula(packet, get_raw=True)
    def gemm_4bit(
        a: Any, b: Any, shape: Any, *args: Any, out_val: Any = None, **kwargs: Any
    ) -> int:
        return 2 * a.numel() * int(shape[0])


def inside(device: Device) -> dict[Any, Callable[..., list[int]]]:
    """What the fused product allocates inside: nothing, or where it falls back to dequantising,
    the unpacked weight and, with double quantization, its scales twice
    (bitsandbytes/backends/cuda/ops.py, `_dequant_linear_fallback`)."""
    packet = getattr(torch.ops.bitsandbytes, "gemm_4bit", None)
    if packet is None:
        return {}
    fused, limit = _choice(device)

    def gemm_4bit(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        a, _, (n, k) = args[0], args[1], args[2]
        blocksize = args[4]
        m = a.numel() // k
        if m <= limit and k % blocksize == 0 and fused(0, a.dtype, m, n, k):
            return []
        sizes = [n * k * a.element_size()]
        scales = kwargs.get("absmax_8bit")
        if scales is not None:
            sizes = [scales.numel() * 4, scales.numel() * 4, *sizes]
        return sizes

    return {packet.default: gemm_4bit}


@functools.cache
def _choice(device: Device) -> tuple[Callable[..., bool], int]:
    """The installed bitsandbytes' own choice of kernel, and the rows up to which it is asked.

    Its module imports only with CUDA, so the one function is compiled from its source; it reads
    nothing but the card's properties, which are given here.
    """
    import bitsandbytes

    source = Path(bitsandbytes.__file__).parent / "backends" / "cuda" / "ops.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    wanted: list[ast.stmt] = []
    limit = 0
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "_gemm_4bit_use_custom_cuda":
            wanted.append(node)
    for item in ast.walk(tree):
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            name, value = item.targets[0].id, item.value
            if name == "_GEMM_4BIT_CUSTOM_FLOOR_M":
                wanted.append(item)
            # The first assignment is CUDA's, the second ROCm's.
            if name == "_gemm_4bit_custom_max_m" and not limit and isinstance(value, ast.Constant):
                limit = int(value.value)  # type: ignore[arg-type]
    if not limit or len(wanted) != 2:
        raise RuntimeError("this bitsandbytes chooses its 4-bit kernel in a way that is not known")
    major, minor = device.compute_capability
    space: dict[str, Any] = {
        "torch": torch,
        "functools": functools,
        "_gpu_dispatch_props": lambda index: (device.sm_count, major, minor),
    }
    exec(compile(ast.Module(body=wanted, type_ignores=[]), str(source), "exec"), space)
    return space["_gemm_4bit_use_custom_cuda"], limit


@contextmanager
def paged_state(tracker: StorageTracker) -> Iterator[None]:
    """A paged optimizer's large states are managed memory, which the allocator does not hold."""
    from bitsandbytes.optim.optimizer import Optimizer8bit

    def get_state_buffer(
        self: Any, p: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        if not self.is_paged or p.numel() < _PAGED_FROM:
            return torch.zeros_like(p, dtype=dtype)
        with tracker.outside_allocator("paged_state"):
            return torch.zeros_like(p, dtype=dtype)

    before = Optimizer8bit.get_state_buffer
    Optimizer8bit.get_state_buffer = get_state_buffer
    try:
        yield
    finally:
        Optimizer8bit.get_state_buffer = before
