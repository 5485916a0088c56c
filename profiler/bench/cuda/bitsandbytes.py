"""bitsandbytes on a CUDA device: its 4-bit and 8-bit products, and optimizer state in paged memory.

Read in bitsandbytes 0.50.2.
"""

from __future__ import annotations

import ast
import functools
import logging
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

#: Said of a simulated GPU's 8-bit products.
NO_OUTLIERS = (
    "LLM.int8's inputs are taken to have no outlier columns (no magnitude from 6.0 up): each that "
    "a real input has is computed, and kept for the backward, in 16 or 32 bits beside the 8-bit "
    "product."
)


def _op(name: str) -> Any:
    return getattr(torch.ops.bitsandbytes, name, None)


def leave_packed(model: torch.nn.Module) -> None:
    """Keep 4-bit weights as they are in an evaluation, too, for which a layer on a CPU with
    AVX512-BF16 packs them anew (bitsandbytes/nn/modules.py, `Linear4bit.forward`)."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def int8_products() -> Iterator[None]:
    """Train with 8-bit products. On a CPU `matmul` (bitsandbytes/autograd/_functions.py)
    dequantises the weight and multiplies in the input's dtype instead."""
    from bitsandbytes.autograd import _functions

    # It warns at every product of an input that is not float16.
    logger = logging.getLogger(_functions.__name__)
    disabled = logger.disabled
    before = _functions.MatMul8bitFp
    _functions.MatMul8bitFp = _functions.MatMul8bitLt
    logger.disabled = True
    try:
        yield
    finally:
        _functions.MatMul8bitFp = before
        logger.disabled = disabled


def replace() -> dict[Any, Callable[..., Any]]:
    """The ops whose result depends on values: which columns of the input are outliers. None is
    (`NO_OUTLIERS`), and then the CUDA kernels return empty tensors for them."""

    def int8_vectorwise_quant(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        a = args[0]
        threshold = args[1] if len(args) > 1 else kwargs.get("threshold", 0.0)
        rows = a.numel() // a.shape[-1]
        return (
            torch.empty(a.shape, dtype=torch.int8),
            torch.empty(rows, dtype=torch.float32),
            torch.empty(0, dtype=torch.int64) if threshold > 0.0 else None,
        )

    def int8_mixed_scaled_mm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        a, ca, cb = args[:3]
        out = torch.empty((*ca.shape[:-1], cb.shape[0]), dtype=a.dtype)
        return out, torch.empty(0, dtype=a.dtype)

    functions = (int8_vectorwise_quant, int8_mixed_scaled_mm)
    packets = {_op(function.__name__): function for function in functions}
    return {packet.default: function for packet, function in packets.items() if packet is not None}


def inside(device: Device) -> dict[Any, Callable[..., list[int]]]:
    """What the products allocate inside."""
    return {**_inside_4bit(device), **_inside_int8()}


def _inside_int8() -> dict[Any, Callable[..., list[int]]]:
    """bitsandbytes/backends/cuda/ops.py and, for the product's parts, backends/default/ops.py.
    cuBLASLt is called without a workspace (csrc/ops.cu, `igemmlt`)."""

    def int8_vectorwise_quant(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        """`A.abs() >= threshold`: the magnitudes, and the mask."""
        a = args[0]
        threshold = args[1] if len(args) > 1 else kwargs.get("threshold", 0.0)
        return [a.numel() * a.element_size(), a.numel()] if threshold > 0.0 else []

    def int8_mixed_scaled_mm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        """The int32 product; the float16 one that it is scaled into, if that is not the result.

        An inner size that is no multiple of 4 is multiplied in float32: both factors, the product
        and its int32 copy, which are freed before the result is made.
        """
        a, ca, cb = args[:3]
        k, n = ca.shape[-1], cb.shape[0]
        m = ca.numel() // k
        scaled = 0 if a.dtype == torch.float16 else 2 * m * n
        result = m * n * a.element_size()
        parts = [4 * m * n, scaled]
        if k % 4:
            parts.append(max(0, 4 * m * k + 4 * n * k + 4 * m * n - scaled - result))
        return [size for size in parts if size]

    functions = (int8_vectorwise_quant, int8_mixed_scaled_mm)
    packets = {_op(function.__name__): function for function in functions}
    return {packet.default: function for packet, function in packets.items() if packet is not None}


def _inside_4bit(device: Device) -> dict[Any, Callable[..., list[int]]]:
    """Of the fused product: nothing, or where it falls back to dequantising, the unpacked weight
    and, with double quantization, its scales twice
    (bitsandbytes/backends/cuda/ops.py, `_dequant_linear_fallback`)."""
    packet = _op("gemm_4bit")
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
