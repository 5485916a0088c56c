"""The thirty published runs of peft's own comparison, and what is counted of the same here."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from profiler.record import Params
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build
from profiler.validation import cases


@dataclass(frozen=True)
class Row:
    """One published run."""

    name: str
    trainable: int
    total: int
    file_bytes: int
    spec: RunSpec

    @functools.cache  # noqa: B019  # there are thirty
    def params(self) -> Params:
        """What is counted of the same, built on the meta device."""
        return build(resolve(self.spec)).params


def rows() -> list[Row]:
    """All rows, in the order of the table."""
    group = cases.group("peft-metamathqa")
    return [
        Row(
            name=case.id,
            trainable=int(case.row["trainable_params"]),
            total=int(case.row["total_params"]),
            file_bytes=int(case.row["adapter_file_bytes"]),
            spec=group.spec_of(case, group.runs[0]),
        )
        for case in group.cases
    ]


def row(prefix: str) -> Row:
    """The row whose name begins so."""
    return next(item for item in rows() if item.name.startswith(prefix))
