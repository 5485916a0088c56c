"""Kernels compiled for GPUs that are not there, and what the machine code takes of them.

Triton's wheel brings `ptxas`, NVIDIA's assembler, so that no driver and no card is needed. The
registers and spills are those that `ptxas -v` reports of the very compile whose code would run.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from profiler.errors import ProfilerError

from . import lora, nf4
from .launching import Tile
from .occupancy import CAPABILITIES, WARP, occupancy
from .results import Build

DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
#: The tensor cores' instructions in PTX, the newest first.
_PRODUCTS = ("wgmma", "mma")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True)
class Variant:
    """A kernel with its constants set.

    Attributes:
        arguments: types of what is no constant, in order; `*` is a pointer.
        constants: by name.
    """

    kernel: Any
    name: str
    text: str
    dtype: str
    tile: Tile
    arguments: tuple[str, ...]
    constants: Mapping[str, Any]


def variants(*, quick: bool = False) -> Iterator[Variant]:
    """What the study compiles: both kernels, each of their tiles, both dtypes; NF4 with plain and
    with double-quantized absmax, LoRA of ranks 16 and 64. `quick`: the smallest tile of each."""
    for dtype in ("bf16",) if quick else tuple(DTYPES):
        for nested in (True,) if quick else (False, True):
            for tile in nf4.TILES[:1] if quick else nf4.TILES:
                yield _nf4(dtype, nested, tile)
        for rank in (16,) if quick else (16, 64):
            for tile in lora.TILES[:1] if quick else lora.TILES:
                yield _lora(dtype, rank, tile)


def _nf4(dtype: str, nested: bool, tile: Tile) -> Variant:
    absmax = "*u8" if nested else "*fp32"
    return Variant(
        kernel=nf4.nf4_matmul_kernel,
        name="nf4_matmul",
        text=f"{8 if nested else 32}-bit absmax",
        dtype=dtype,
        tile=tile,
        arguments=(f"*{dtype}", "*u8", absmax, *["*fp32"] * 4, f"*{dtype}", *["i32"] * 3),
        constants={
            "NESTED": nested,
            "ALIGNED": True,
            "BLOCK_M": tile.m,
            "BLOCK_N": tile.n,
            "BLOCK_K": tile.k,
            "INTERPRETED": False,
        },
    )


def _lora(dtype: str, rank: int, tile: Tile) -> Variant:
    return Variant(
        kernel=lora.lora_linear_kernel,
        name="lora_linear",
        text=f"rank {rank}",
        dtype=dtype,
        tile=tile,
        arguments=(*[f"*{dtype}"] * 5, *["i32"] * 4, "fp32"),
        constants={
            "BLOCK_M": tile.m,
            "BLOCK_N": tile.n,
            "BLOCK_K": tile.k,
            "BLOCK_R": rank,
            "INTERPRETED": False,
        },
    )


def build(variant: Variant, capability: int) -> Build:
    """Compile for `sm_<capability>` and read off what it takes.

    Pointers, sizes and the rank are taken as multiples of 16, as Triton's launcher finds them for a
    model's layers: wide loads depend on it. Nothing is left in Triton's cache.

    Raises:
        ProfilerError: it does not compile, or the assembler's report is not understood.
    """
    # The decorator made something else of it if TRITON_INTERPRET is set.
    function = JITFunction(variant.kernel.fn)
    names = function.arg_names
    types = [*variant.arguments, *["constexpr"] * (len(names) - len(variant.arguments))]
    source = ASTSource(
        fn=function,
        signature=dict(zip(names, types, strict=True)),
        constexprs=dict(variant.constants),
        attrs={
            (place,): [["tt.divisibility", 16]]
            for place, type in enumerate(variant.arguments)
            if type != "fp32"
        },
    )
    log = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        knobs.cache.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(log),
    ):
        knobs.cache.dir = folder
        knobs.nvidia.dump_ptxas_log = True
        try:
            compiled = triton.compile(
                source,
                target=GPUTarget("cuda", capability, WARP),
                options={"num_warps": variant.tile.warps, "num_stages": variant.tile.stages},
            )
        except Exception as error:  # Triton's own are many, and none is exported
            what = f"{variant.name} {variant.tile}, {variant.text}"
            raise ProfilerError(f"{what} does not compile for sm_{capability}: {error}") from error
    registers, spills, static = _report(log.getvalue())
    shared = compiled.metadata.shared + static
    held = occupancy(
        CAPABILITIES[capability], warps=variant.tile.warps, registers=registers, shared=shared
    )
    return Build(
        kernel=variant.name,
        variant=variant.text,
        dtype=variant.dtype,
        tile=str(variant.tile),
        warps=variant.tile.warps,
        stages=variant.tile.stages,
        capability=capability,
        registers=registers,
        spill_stores=spills[0],
        spill_loads=spills[1],
        shared=shared,
        product=_product(compiled.asm["ptx"]),
        blocks=held.blocks,
        occupancy=held.share,
        limit=held.limit,
    )


def _product(ptx: str) -> str:
    """The instruction that multiplies matrices; `none` if no tensor core does."""
    return next((name for name in _PRODUCTS if re.search(rf"^\s*{name}\.", ptx, re.M)), "none")


def _report(log: str) -> tuple[int, tuple[int, int], int]:
    """Registers, spilled bytes (stores, loads) and static shared memory from `ptxas -v`."""
    registers, spills = _REGISTERS.findall(log), _SPILLS.findall(log)
    if len(registers) != 1 or len(spills) != 1:
        raise ProfilerError(f"ptxas' report is not understood (triton {triton.__version__})")
    static = _SHARED.search(log)
    return (
        int(registers[0]),
        (int(spills[0][0]), int(spills[0][1])),
        int(static[1]) if static else 0,
    )
