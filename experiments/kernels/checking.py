"""The kernels against 64-bit arithmetic: how far rounding may take them, and how far it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from . import lora, nf4, reference
from .results import Check

#: Half the distance of 1 to the next number.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
#: The smallest step of a subnormal number.
SMALLEST = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Case:
    """A random problem: `rows` x `depth` activations, `columns` x `depth` weights.

    `nested` is of NF4 alone, `rank` of LoRA.
    """

    rows: int
    columns: int
    depth: int
    dtype: torch.dtype
    seed: int
    rank: int = 0
    nested: bool = False
    device: str = "cpu"

    def __str__(self) -> str:
        more = f", rank {self.rank}" if self.rank else ", double-quantized" * self.nested
        return f"{self.rows} × {self.columns} × {self.depth}{more}"


def nf4_error(case: Case) -> float:
    """The largest error of `nf4_matmul` as a share of what rounding allows: at most 1 if right.

    bitsandbytes packs the weight; the plain reference decodes it, and 64 bits multiply it.
    """
    import bitsandbytes.functional as bnb

    draw = _draws(case)
    packed, state = bnb.quantize_4bit(
        draw(case.columns, case.depth),
        blocksize=nf4.BLOCK,
        quant_type="nf4",
        compress_statistics=case.nested,
    )
    x = draw(case.rows, case.depth)
    weight = reference.nf4_dequantize(packed, state, case.dtype).double()
    exact = x.double() @ weight.T
    # Triton's interpreter cuts off where a GPU rounds to the nearest bfloat16.
    cuts = case.dtype == torch.bfloat16 and case.device == "cpu"
    cut = 2 * ROUNDING[case.dtype] if cuts else 0.0
    sizes = x.double().abs() @ weight.abs().T
    return _share(nf4.nf4_matmul(x, packed, state), exact, sizes, case, cut)


def lora_error(case: Case) -> float:
    """The largest error of `lora_linear` as a share of what rounding allows: at most 1 if right."""
    draw = _draws(case)
    x, weight = draw(case.rows, case.depth), draw(case.columns, case.depth)
    a, b = draw(case.rank, case.depth), draw(case.columns, case.rank)
    scaling = 2.0 / case.rank
    x64, weight64, a64, b64 = (tensor.double() for tensor in (x, weight, a, b))
    exact = reference.lora_linear(x64, weight64, a64, b64, scaling)
    total = reference.lora_linear(x64.abs(), weight64.abs(), a64.abs(), b64.abs(), scaling)
    # `s x A^T` is rounded once; the bound takes all of the sum for it, which is no less.
    return _share(
        lora.lora_linear(x, weight, a, b, scaling), exact, total, case, 2 * ROUNDING[case.dtype]
    )


def _share(
    found: torch.Tensor, exact: torch.Tensor, sizes: torch.Tensor, case: Case, inner: float
) -> float:
    """The largest error over its bound.

    Args:
        sizes: the same sums over absolute values, to which errors of the terms are relative.
        inner: relative error of the terms before they are summed.
    """
    # Sums of 32 bits in any order, the result's own rounding (or cutting off), subnormals.
    summing = 2.0**-23 * (case.depth + case.rank)
    bound = (inner + summing) * sizes + 2 * ROUNDING[case.dtype] * exact.abs()
    bound = bound * (1 + 2 * ROUNDING[case.dtype]) + SMALLEST[case.dtype]
    error = (found.double() - exact).abs() / bound
    # NaN is no small error.
    return float(torch.where(error.isnan(), torch.inf, error).max())


def _draws(case: Case) -> Callable[..., torch.Tensor]:
    generator = torch.Generator().manual_seed(case.seed)
    return lambda *shape: torch.randn(*shape, generator=generator).to(case.device, case.dtype)


def check(*, device: str = "cpu", cases: int = 40, seed: int = 0) -> list[Check]:
    """Random shapes, odd ones among them, of each kernel and dtype.

    Args:
        device: "cpu", in Triton's interpreter, or "cuda".
        cases: of each kernel and dtype.
    """
    generator = torch.Generator().manual_seed(seed)

    def integer(most: int) -> int:
        return int(torch.randint(1, most + 1, (), generator=generator))

    result = []
    for name, error in (("nf4_matmul", nf4_error), ("lora_linear", lora_error)):
        for dtype in ROUNDING:
            found: list[tuple[float, Case]] = []
            for number in range(cases):
                depth = integer(200)
                case = Case(
                    rows=1 if number % 4 == 0 else integer(150),
                    columns=integer(150),
                    # Half of NF4's are whole blocks, as all models' are.
                    depth=nf4.BLOCK * integer(4) if number % 2 else depth,
                    dtype=dtype,
                    seed=seed + number,
                    rank=integer(40) if name == "lora_linear" else 0,
                    nested=name == "nf4_matmul" and integer(2) == 1,
                    device=device,
                )
                found.append((error(case), case))
            worst, worst_case = max(found, key=lambda one: one[0])
            largest = max((case for _, case in found), key=lambda one: one.rows * one.columns)
            result.append(
                Check(
                    kernel=name,
                    dtype=NAMES[dtype],
                    device=device,
                    cases=cases,
                    worst=worst,
                    worst_case=str(worst_case),
                    largest=str(largest),
                )
            )
    return result
