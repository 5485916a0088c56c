"""The rows of data/peft_metamathqa.csv, and each as a cell (data/README.md says what they are)."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from profiler.record import Params
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Row:
    """One published run."""

    name: str
    trainable: int
    total: int
    file_bytes: int
    optimizer: str
    adapter_dtype: str

    @functools.cache  # noqa: B019  # there are thirty
    def params(self) -> Params:
        """What is counted of the same, built on the meta device."""
        config = DATA / "adapter_configs" / f"{self.name}.json"
        return build(
            resolve(
                RunSpec(
                    model="llama-3.2-3b",
                    method=str(config) if config.exists() else "full",
                    stack="script",
                    optimizer=self.optimizer,
                    adapter_dtype=self.adapter_dtype,
                )
            )
        ).params


def rows() -> list[Row]:
    """All rows, in the order of the table."""
    with (DATA / "peft_metamathqa.csv").open(newline="") as file:
        return [
            Row(
                name=row["name"],
                trainable=int(row["trainable_params"]),
                total=int(row["total_params"]),
                file_bytes=int(row["adapter_file_bytes"]),
                optimizer=row["optimizer"],
                adapter_dtype=row["adapter_dtype"],
            )
            for row in csv.DictReader(file)
        ]


def row(prefix: str) -> Row:
    """The row whose name begins so."""
    return next(item for item in rows() if item.name.startswith(prefix))
