"""Kernels compiled without a GPU: what the assembler says of them, and that nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from triton.runtime.interpreter import InterpretedFunction

from experiments.kernels import compiling, lora, nf4
from experiments.kernels.launching import Tile
from experiments.kernels.occupancy import CAPABILITIES, REGISTERS_PER_THREAD
from experiments.kernels.results import Build
from profiler.errors import ProfilerError

SMALLEST = {one.name: one for one in compiling.variants(quick=True)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Triton's cache, and nobody's home."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fits(build: Build) -> None:
    card = CAPABILITIES[build.capability]
    assert 0 < build.registers <= REGISTERS_PER_THREAD
    assert 0 < build.shared <= card.shared_block
    assert build.blocks >= 1
    assert build.occupancy == build.blocks * build.warps / card.warps
    assert build.spill_stores >= 0


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kernel", SMALLEST)
def test_it_compiles_and_fits(
    kernel: str, capability: int, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compiling.build(SMALLEST[kernel], capability)
    fits(found)
    # Fewer rows than Hopper's own instruction takes.
    assert found.product == "mma"
    assert not cache.exists()
    assert capsys.readouterr().out == ""


def test_hopper_multiplies_a_wider_tile_with_its_own_instruction() -> None:
    wider = compiling._lora("fp16", 16, lora.TILES[1])
    assert compiling.build(wider, 90).product == "wgmma"


def test_registers_that_do_not_fit_are_counted_as_spilled() -> None:
    """One warp for a tile of four: more numbers than registers."""
    crowded = compiling._lora("bf16", 16, Tile(64, 64, 32, 1, 1))
    found = compiling.build(crowded, 80)
    assert found.registers == REGISTERS_PER_THREAD
    assert found.spill_stores > 0
    assert found.spill_loads > 0


def test_it_compiles_where_triton_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under TRITON_INTERPRET=1, when `triton.jit` gives an interpreted function."""
    interpreted = InterpretedFunction(nf4.nf4_matmul_kernel.fn)
    monkeypatch.setattr(nf4, "nf4_matmul_kernel", interpreted)
    fits(compiling.build(compiling._nf4("bf16", True, nf4.TILES[0]), 80))


def test_what_does_not_compile_is_named() -> None:
    odd = compiling._nf4("bf16", True, Tile(16, 48, nf4.BLOCK, 4, 3))
    with pytest.raises(ProfilerError, match=r"nf4_matmul 16 × 48 × 64, .* does not compile for"):
        compiling.build(odd, 80)
