"""How many blocks of a kernel an SM can hold at once, by CUDA's rules.

The limits are the CUDA Programming Guide's (appendix "Compute Capabilities", table of technical
specifications: docs.nvidia.com/cuda/cuda-programming-guide); how registers and shared memory are
rounded up is NVIDIA's occupancy calculator's (`cuda_occupancy.h`, in every CUDA toolkit and in
Triton's wheel).
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
WARP = 32
#: Registers are given to warps in units of 256, in each of an SM's four partitions by itself.
REGISTER_UNIT = 256
PARTITIONS = 4
REGISTERS_PER_THREAD = 255
#: Shared memory is given in units of 128 bytes; the driver takes 1 KiB of it for each block.
SHARED_UNIT = 128
SHARED_RESERVED = 1 * KIB


@dataclass(frozen=True, slots=True)
class Capability:
    """What an SM of one compute capability holds. Sizes in bytes.

    Attributes:
        number: the compute capability times ten, as in `sm_80`.
        gpus: some that have it.
        shared: of an SM; `shared_block`: the most of one block, after opting in.
    """

    number: int
    gpus: str
    warps: int
    blocks: int
    shared: int
    shared_block: int
    registers: int = 65536

    @property
    def name(self) -> str:
        return f"sm_{self.number}"


CAPABILITIES = {
    one.number: one
    for one in (
        Capability(80, "A100", 64, 32, 164 * KIB, 163 * KIB),
        Capability(89, "L4, L40S, RTX 4090", 48, 24, 100 * KIB, 99 * KIB),
        Capability(90, "H100, H200", 64, 32, 228 * KIB, 227 * KIB),
    )
}


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Blocks and warps on one SM, and the resource that allows no more. 0 blocks: cannot run."""

    blocks: int
    warps: int
    share: float
    limit: str


def occupancy(capability: Capability, *, warps: int, registers: int, shared: int) -> Occupancy:
    """The theoretical occupancy: what fits, not what a launch with too few blocks fills.

    Args:
        warps: of a block; at most 32.
        registers: of a thread.
        shared: bytes of a block, static and dynamic.
    """
    per_warp = -(-registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
    # The hardware checks a block as if its warps filled all partitions.
    together = -(-warps // PARTITIONS) * PARTITIONS * per_warp
    too_many = registers > REGISTERS_PER_THREAD or together > capability.registers
    in_partition = capability.registers // PARTITIONS // max(per_warp, 1)
    taken = -(-(shared + SHARED_RESERVED) // SHARED_UNIT) * SHARED_UNIT
    limits = {
        "registers": 0 if too_many else in_partition * PARTITIONS // warps,
        "shared memory": 0 if shared > capability.shared_block else capability.shared // taken,
        "warps": capability.warps // warps,
        "blocks": capability.blocks,
    }
    blocks = min(limits.values())
    held = blocks * warps
    limit = ", ".join(name for name, most in limits.items() if most == blocks)
    return Occupancy(blocks, held, held / capability.warps, limit)
