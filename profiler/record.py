"""Record: all that is kept of one run. Plain data, JSON both ways, checked when read.

Bytes are integers, times are seconds, FLOPs are integers; a multiply-add is two FLOPs. On a CUDA
device bytes are allocator block sizes (512-byte rounding, unsplit remainder included), on a CPU
they are storage bytes. Everything in `memory` but `process` is null for a run without result.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    model_validator,
)

from profiler.errors import StoreError

#: Version of the record's shape; raised when a key changes its meaning or goes away.
SCHEMA = 1

Status = Literal["ok", "oom", "failed", "crashed", "timeout", "refused", "unsupported"]
Source = Literal["measured", "simulated"]

#: Statuses that are an answer (exit code 0); a measured `oom` is not, see `Record.answered`.
ANSWERS = frozenset({"ok", "oom", "unsupported"})


class Part(BaseModel):
    """Base of the record's parts: unknown keys are kept (a later version may have written them)."""

    model_config = ConfigDict(extra="allow")


class Params(Part):
    """Parameter counts; `total` includes the adapter's, 4-bit weights count as unpacked."""

    total: int
    trainable: int
    trainable_fraction: float
    adapter_file_bytes: int | None = None


class Holder(Part):
    """One allocation alive at the peak. `source`: the line that asked for it, "" if unknown."""

    bytes: int
    category: str
    op: str
    module: str
    shape: list[int]
    dtype: str
    phase: str
    source: str = ""


class Holders(Part):
    """Alike allocations alive at the peak, together: `count` of them, `bytes` in all.

    `module` has the numbers of a stack's layers written as `*`. The smallest groups of a category
    are one: `op` is then "", `shape` and `dtype` are null.
    """

    category: str
    op: str
    module: str
    source: str = ""
    shape: list[int] | None = None
    dtype: str | None = None
    count: int
    bytes: int


class Timeline(Part):
    """Allocated and reserved bytes over one step, thinned to at most 2,000 points, peak kept.

    `event` is the position in the trace, `phase` each point's phase, `allocated` maps each
    category to its bytes at each point, `reserved` is null on a CPU.
    """

    event: list[int]
    phase: list[str]
    allocated: dict[str, list[int]]
    reserved: list[int] | None = None


class LoadMemory(Part):
    """Memory of a GPU while the model was loaded, quantised, prepared and adapted.

    `after_*` is what was left when that was done, before the first step; `at_peak` sums to
    `peak_allocated`, and what was freed again (16-bit weights that were being quantised, the block
    that warms the allocator) is `temporaries`.
    """

    peak_allocated: int
    peak_reserved: int
    after_allocated: int
    after_reserved: int
    at_peak: dict[str, int] = Field(default_factory=dict)


class HistorySeries(Part):
    """Some of a run's steps, of each stretch the one that reserves most: their number (the first
    is 1), their batch and its bytes. What is reserved is null on a CPU."""

    step: list[int]
    batch: list[int]
    length: list[int]
    peak_allocated: list[int]
    after_step_allocated: list[int]
    peak_reserved: list[int] | None = None
    after_step_reserved: list[int] | None = None


class History(Part):
    """A run of steps of different lengths.

    `peak_step` is the first step that reaches `peak_allocated`, `peak_batch` and `peak_length` its
    samples and tokens, padding included; `reserved_max_step` the first that reaches
    `peak_reserved`. The means are of what is reserved and allocated after each step, before the
    cache is emptied.
    """

    steps: int
    peak_step: int
    peak_batch: int
    peak_length: int
    reserved_max_step: int | None = None
    reserved_mean: float | None = None
    after_step_mean: float
    distinct_shapes: int
    simulated_shapes: int
    series: HistorySeries


class Memory(Part):
    """Memory of the measured steps. `phases`: peak in each; their maximum is `peak_allocated`.
    `holders`: all that is alive at the peak, alike blocks together.
    """

    peak_allocated: int | None = None
    load_peak: int | None = None
    load: LoadMemory | None = None
    after_step_allocated: int | None = None
    peak_reserved: int | None = None
    device_total: int | None = None
    process: dict[str, int] | None = None
    phases: dict[str, int] = Field(default_factory=dict)
    at_peak: dict[str, int] = Field(default_factory=dict)
    outside_allocator: dict[str, int] = Field(default_factory=dict)
    largest_at_peak: list[Holder] = Field(default_factory=list)
    holders: list[Holders] = Field(default_factory=list)
    modules: dict[str, dict[str, int]] = Field(default_factory=dict)
    timeline: Timeline | None = None
    history: History | None = None


class Flops(Part):
    """FLOPs of one optimizer step. `phases`: forward, backward, recompute, optimizer.

    `modules`: the same of each module's own ops (path, then phase), which sum to `phases`; modules
    and phases without FLOPs are left out. Empty where steps of many lengths were run.
    """

    total: int
    phases: dict[str, int]
    modules: dict[str, dict[str, int]] = Field(default_factory=dict)


class Kernel(Part):
    """One kind of kernel in one phase: how often it ran and what it took.

    `intensity` is FLOPs per byte, null where no bytes are known.
    """

    name: str
    op: str
    phase: str
    count: int
    seconds: float
    flops: int
    bytes: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def intensity(self) -> float | None:
        return self.flops / self.bytes if self.bytes else None

    @model_validator(mode="before")
    @classmethod
    def _derived(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if k != "intensity"} if "intensity" in data else data


class Time(Part):
    """Time of one optimizer step in seconds; `spread` is null for a prediction.

    `mfu` is the model FLOPs utilisation (`profiler.analysis.utilisation`), null where no peak is
    known. `kernels` and `outside_kernels` (Python, dispatching, a device's idle time) sum to
    `phases`; `modules` is the kernels' time by module (path, then phase). `profiled` is what the
    phases took in the step that the kernels of a measured run were seen in. `bound` divides a
    predicted step by what decides each moment: `compute`, `memory`, or `launch` (the device waits
    for the host, or a kernel is as short as one can be); they sum to `step`.
    """

    source: Literal["measured", "predicted"]
    step: float
    phases: dict[str, float]
    tokens_per_second: float
    mfu: float | None = None
    spread: dict[str, float] | None = None
    kernels: list[Kernel] = Field(default_factory=list)
    outside_kernels: dict[str, float] = Field(default_factory=dict)
    modules: dict[str, dict[str, float]] = Field(default_factory=dict)
    profiled: dict[str, float] | None = None
    bound: dict[str, float] = Field(default_factory=dict)


class Energy(Part):
    """Energy of one step on the whole device, and from which of its figures."""

    joules: float
    mean_watts: float
    source: str | None = None


class DeviceState(Part):
    """What a GPU told of itself while the measured steps ran; nothing of it was set.

    Each figure is {min, median, max} of `samples`, null where the driver does not say. `limited` is
    the share of samples in which power or heat kept the clocks down.
    """

    seconds: float
    samples: int
    power_watts: dict[str, float] | None = None
    sm_clock_mhz: dict[str, float] | None = None
    memory_clock_mhz: dict[str, float] | None = None
    temperature_celsius: dict[str, float] | None = None
    memory_bytes: dict[str, float] | None = None
    limited: float | None = None


class Fits(Part):
    """Capacity of the simulated GPU and what is left of it; negative headroom does not fit."""

    capacity: int
    headroom: int


class Record(Part):
    """The result of one cell. Every key of the contract is always present.

    `traced` says of a simulated step whether all layers were run, and why, or whether it was
    written by repetition of a few; the figures are the same.
    """

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    schema_version: int = Field(default=SCHEMA, alias="schema")
    id: str
    status: Status
    error: str | None = None
    source: Source
    spec: dict[str, Any]
    params: Params | None = None
    memory: Memory = Field(default_factory=Memory)
    flops: Flops | None = None
    time: Time | None = None
    energy: Energy | None = None
    device_state: DeviceState | None = None
    fits: Fits | None = None
    approximations: list[str] = Field(default_factory=list)
    traced: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """The method as it was typed."""
        method = self.spec.get("method")
        return str(method.get("label", "")) if isinstance(method, dict) else str(method)

    @property
    def answered(self) -> bool:
        """Whether the cell has a result: `ok`, `unsupported`, or out of memory by prediction."""
        return self.status in ANSWERS and not (self.status == "oom" and self.source == "measured")

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Any) -> Record:
        """The record of `to_dict`'s output.

        Raises:
            StoreError: `data` is no record, or one of a schema this version does not read.
        """
        if not isinstance(data, dict) or "schema" not in data:
            raise StoreError("not a record: no schema")
        if data["schema"] != SCHEMA:
            raise StoreError(
                f"a record of schema {data['schema']!r}; this version reads schema {SCHEMA}"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise StoreError(f"not a record: {where}: {first['msg']}") from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """As `from_dict`, from JSON text."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"not a record: {error}") from None
        return cls.from_dict(data)
