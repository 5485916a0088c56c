"""Occupancy, held to NVIDIA's own calculator, which is a C header in Triton's wheel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import triton
from hypothesis import given
from hypothesis import strategies as st

from experiments.kernels.occupancy import CAPABILITIES, occupancy

HEADER = Path(triton.__file__).parent / "backends" / "nvidia" / "include" / "cuda_occupancy.h"

#: Reads lines of numbers, one launch each, and writes how many blocks fit.
PROGRAM = """
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <cuda_occupancy.h>
int main(void) {
  int number, threads_sm, shared_sm, shared_block, warps, registers, shared;
  while (scanf("%d %d %d %d %d %d %d", &number, &threads_sm, &shared_sm, &shared_block,
               &warps, &registers, &shared) == 7) {
    cudaOccDeviceProp card = {0};
    cudaOccFuncAttributes kernel = {0};
    cudaOccDeviceState state = {0};
    cudaOccResult result;
    card.computeMajor = number / 10; card.computeMinor = number % 10;
    card.maxThreadsPerBlock = 1024; card.maxThreadsPerMultiprocessor = threads_sm;
    card.regsPerBlock = card.regsPerMultiprocessor = 65536; card.warpSize = 32;
    card.sharedMemPerBlock = 48 * 1024; card.sharedMemPerMultiprocessor = shared_sm;
    card.sharedMemPerBlockOptin = shared_block; card.numSms = 100;
    card.reservedSharedMemPerBlock = 1024;
    kernel.maxThreadsPerBlock = 1024; kernel.numRegs = registers;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN; kernel.maxDynamicSharedSizeBytes = shared;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &card, &kernel, &state, 32 * warps,
                                                shared))
      return 1;
    printf("%d\\n", result.activeBlocksPerMultiprocessor);
  }
  return 0;
}
"""


def test_it_is_what_nvidia_s_calculator_gives(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not HEADER.is_file():
        pytest.skip("no C compiler, or no cuda_occupancy.h in Triton's wheel")
    source, program = tmp_path / "blocks.c", tmp_path / "blocks"
    source.write_text(PROGRAM)
    subprocess.run([compiler, "-w", "-I", HEADER.parent, source, "-o", program], check=True)
    launches = [
        (card, warps, registers, shared)
        for card in CAPABILITIES.values()
        for warps in (1, 2, 3, 4, 8, 12, 16, 31, 32)
        for registers in range(16, 256, 3)
        for shared in (0, 1, 1000, 1024, *range(4000, 240_000, 7919), card.shared_block)
    ]
    lines = [
        f"{card.number} {32 * card.warps} {card.shared} {card.shared_block} "
        f"{warps} {registers} {shared}"
        for card, warps, registers, shared in launches
    ]
    done = subprocess.run(
        [program], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    expected = [int(line) for line in done.stdout.split()]
    found = [
        occupancy(card, warps=warps, registers=registers, shared=shared).blocks
        for card, warps, registers, shared in launches
    ]
    wrong = [
        (launch, ours, theirs)
        for launch, ours, theirs in zip(launches, found, expected, strict=True)
        if ours != theirs
    ]
    assert wrong == []


@given(
    st.sampled_from(list(CAPABILITIES.values())),
    st.integers(1, 32),
    st.integers(1, 255),
    st.integers(0, 230_000),
)
def test_what_fits_is_within_every_limit(
    card: object, warps: int, registers: int, shared: int
) -> None:
    held = occupancy(card, warps=warps, registers=registers, shared=shared)  # type: ignore[arg-type]
    assert 0 <= held.share <= 1
    assert held.blocks * registers * 32 * warps <= 65536
    assert held.limit
