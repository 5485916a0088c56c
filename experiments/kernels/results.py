"""What the study found, as plain data: `kernels.json`, from which the page is drawn."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from profiler import stored

#: Version of the file's shape.
SCHEMA = 1


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Build(_Data):
    """One kernel, compiled for one GPU architecture.

    Attributes:
        variant: what of the kernel's constants differs, in words.
        tile: m × n × k of a block of `warps` warps; `stages` loads are in flight.
        registers: of a thread; spill_stores, spill_loads: bytes of a thread that did not fit.
        shared: bytes of a block, static and dynamic.
        product: the tensor cores' instruction, `wgmma` or `mma`.
        blocks, occupancy, limit: `occupancy.occupancy` of it.
    """

    kernel: str
    variant: str
    dtype: str
    tile: str
    warps: int
    stages: int
    capability: int
    registers: int
    spill_stores: int
    spill_loads: int
    shared: int
    product: str
    blocks: int
    occupancy: float
    limit: str


class Check(_Data):
    """Random cases of one kernel and dtype against 64-bit arithmetic.

    `worst` is the largest error as a share of what rounding allows, `worst_case` its shape;
    `device` is "cpu" in Triton's interpreter.
    """

    kernel: str
    dtype: str
    device: str
    cases: int
    worst: float
    worst_case: str
    largest: str


class Timing(_Data):
    """Milliseconds of one call on a GPU: median, 20th and 80th percentile."""

    kernel: str
    shape: str
    tile: str
    fused: tuple[float, float, float]
    separate: tuple[float, float, float]


class Results(_Data):
    """All that `python -m experiments.kernels` found out.

    `device` is the GPU that was timed on; empty, and `timings` with it, where there was none.
    """

    schema_version: int = Field(default=SCHEMA, alias="schema")
    command: str
    environment: dict[str, str]
    builds: list[Build]
    checks: list[Check]
    device: str = ""
    timings: list[Timing] = Field(default_factory=list)

    def to_json(self) -> str:
        return stored.to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Results:
        """The results of `to_json`'s output.

        Raises:
            StoreError: `text` is none, or of another schema.
        """
        return stored.from_json(cls, text, schema=SCHEMA, what="results of the kernels")
