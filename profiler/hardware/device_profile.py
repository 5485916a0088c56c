"""What `python -m profiler.calibrate` measured of a machine: the device profile, a JSON file.

It holds how long products, kernels and attention took at the sizes that were tried, and what the
host and its memory add; `profiler.analysis.cpu_cost` predicts a step from it. Nothing in it is of a
model or a method.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from profiler.errors import StoreError, UsageError
from profiler.files import replace_file

#: Version of the file's shape.
SCHEMA = 1

Kind = Literal["cpu", "cuda"]
#: How the two factors of a product lie in memory: (m, k) by (k, n) as they stand (`nn`), the second
#: transposed (`nt`: a linear layer's forward), the first (`tn`: its weight's gradient).
Layout = Literal["nn", "nt", "tn"]

_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Whole = Annotated[int, Field(gt=0)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Product(_Data):
    """A matrix product that was timed: `batch` times (m, k) by (k, n). `op` is its kind: `mm`,
    `bmm`, or a quantised layer's own op by its name."""

    op: str
    dtype: str
    layout: Layout
    batch: _Whole
    m: _Whole
    n: _Whole
    k: _Whole
    seconds: _Seconds


class Curve(_Data):
    """A kernel's time by its size: (bytes read and written, seconds), smallest first."""

    op: str
    dtype: str
    points: Annotated[list[tuple[_Whole, _Seconds]], Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Curve:
        sizes = [size for size, _ in self.points]
        if any(one >= other for one, other in itertools.pairwise(sizes)):
            raise ValueError(f"the sizes of {self.op} do not grow")
        return self


class Attention(_Data):
    """A fused attention that was timed.

    `intensity` is its FLOPs over its bytes, which is how many keys a query meets; `flops` are those
    that the formula of `torch.utils.flop_counter` counts, whatever a causal mask spares.
    """

    op: str
    dtype: str
    intensity: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    flops: _Whole
    seconds: _Seconds


class Copy(_Data):
    """A copy between two blocks of memory that no cache holds, of `nbytes` each."""

    nbytes: _Whole
    seconds: _Seconds


class Host(_Data):
    """Seconds that an op costs beside its kernel (Python, dispatch, autograd), by phase, and a
    `tensor` of a list that an op takes: what is left of the steps of small models, shared out."""

    forward: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    backward: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    optimizer: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    tensor: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class DeviceProfile(_Data):
    """A machine as it was measured.

    Attributes:
        name: the processor's or the GPU's.
        threads: that torch computed with; on a CPU the figures hold for as many.
        clock: what timed: `process_time`, the processor time of one thread, which is its elapsed
            time where nothing else runs; `perf_counter`, elapsed time; `cuda_event`.
        statistic: which of a figure's repetitions stands for it.
        quick: few sizes, shortly: good for a try, not for figures.
        seconds: how long calibrating took.
        fault: seconds for a byte of memory that the system gives anew (a page fault's part of it).
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Kind
    name: str
    threads: _Whole
    clock: str
    statistic: str
    quick: bool
    seconds: float
    environment: dict[str, Any]
    products: Annotated[list[Product], Field(min_length=1)]
    kernels: Annotated[list[Curve], Field(min_length=1)]
    attention: list[Attention] = Field(default_factory=list)
    copies: Annotated[list[Copy], Field(min_length=1)]
    host: Host
    fault: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def sha256(self) -> str:
        """Of its content, whatever its file is called."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What a record keeps of it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "threads": self.threads,
            "quick": self.quick,
            "sha256": self.sha256,
            "torch": self.environment.get("torch"),
        }

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", by_alias=True), ensure_ascii=False)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            replace_file(path, (self.to_json() + "\n").encode())
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from None


def read(path: Path | str) -> DeviceProfile:
    """The profile of a file.

    Raises:
        UsageError: there is none, or it is no device profile of this version.
    """
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(
            f"no device profile at {path}: {error.strerror or error}; "
            "python -m profiler.calibrate writes one"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a device profile: {error}") from None
    if not isinstance(data, dict) or "schema" not in data:
        raise UsageError(
            f"{path}: not a device profile: no schema; python -m profiler.calibrate writes one"
        )
    if data["schema"] != SCHEMA:
        raise UsageError(
            f"{path}: a device profile of schema {data['schema']!r}; this version reads schema "
            f"{SCHEMA}"
        )
    try:
        return DeviceProfile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise UsageError(f"{path}: not a device profile: {said}") from None
