"""Validations as a run gives them, made from numbers."""

from __future__ import annotations

from typing import Any

from profiler.record import History, HistorySeries, LoadMemory, Memory, Params, Record, Time
from profiler.validation import cases, compare
from profiler.validation.result import CellInfo, Validation

VERSIONS = {"torch": "2.13.0+cpu", "transformers": "5.23.0", "peft": "0.20.0"}


def record_of(entry: compare.Entry, factor: float, *, time: float = 0.5) -> Record:
    """A simulated record whose bytes, with the entry's constants, are `factor` of what it wants,
    counts exact; so is its time where a bound is claimed for it, else it is `time` of it."""
    wanted = {one.metric: one.measured for one in entry.wanted}
    constants = {one.metric: one.constant for one in entry.wanted}
    claimed = any(one.metric == "time.step" and one.bound for one in entry.wanted)

    def scaled(name: str) -> int:
        return round(factor * wanted.get(name, 2**30)) - constants.get(name, 0)

    params = [round(wanted.get(f"params.{name}", 10**6)) for name in ("total", "trainable")]
    file = scaled("params.adapter_file_bytes")
    return Record(
        id=f"{entry.case}-{entry.run}",
        status="ok",
        source="simulated",
        spec=entry.spec.to_dict(),
        params=Params(
            total=params[0],
            trainable=params[1],
            trainable_fraction=params[1] / params[0],
            adapter_file_bytes=file,
        ),
        memory=Memory(
            peak_allocated=scaled("peak_allocated"),
            after_step_allocated=scaled("after_step_allocated"),
            peak_reserved=scaled("peak_reserved"),
            device_total=scaled("device_total"),
            phases={
                name: scaled(f"phases.{name}") for name in ("forward", "backward", "optimizer")
            },
            load=LoadMemory(
                peak_allocated=2**30,
                peak_reserved=2**30,
                after_allocated=scaled("load.after_allocated"),
                after_reserved=2**30,
            ),
            history=History(
                steps=1,
                peak_step=1,
                peak_batch=4,
                peak_length=697,
                reserved_max_step=1,
                reserved_mean=scaled("history.reserved_mean"),
                after_step_mean=scaled("history.after_step_mean"),
                distinct_shapes=1,
                simulated_shapes=1,
                series=HistorySeries(
                    step=[1], batch=[4], length=[697], peak_allocated=[1], after_step_allocated=[1]
                ),
            ),
        ),
        time=Time(
            source="predicted",
            step=(factor if claimed else time) * float(wanted.get("time.step", 1.0)),
            phases={},
            tokens_per_second=1.0,
        ),
        approximations=["The step time is a first estimate."],
        environment={**VERSIONS, "fingerprint": "0123456789ab"},
    )


def validation_of(factors: list[float], **changes: Any) -> Validation:
    """A validation of all shipped groups, whose cases are off by `factors` in turn."""
    groups = cases.load()
    entries = [
        entry for group in groups for entry in compare.entries(group, group.cases, group.runs)
    ]
    records = [
        record_of(entry, factors[place % len(factors)]) for place, entry in enumerate(entries)
    ]
    return Validation(
        command="python -m profiler.validate",
        environments={"0123456789ab": records[0].environment},
        groups=[compare.group_info(group, group.runs) for group in groups],
        cells=[
            CellInfo(
                id=record.id,
                case=entry.case,
                group=entry.group,
                run=entry.run,
                label=record.label,
                status=record.status,
                versions=compare.differing(entry, record),
                approximations=record.approximations,
            )
            for entry, record in zip(entries, records, strict=True)
        ],
        figures=[
            figure
            for entry, record in zip(entries, records, strict=True)
            for figure in compare.figures(entry, record)
        ],
    ).model_copy(update=changes)
