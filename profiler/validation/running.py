"""Runs the simulations of a validation, as a sweep runs its cells: what is stored is reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from profiler import grid, runner
from profiler.errors import UsageError
from profiler.executors.local import start_server
from profiler.files import replace_file
from profiler.record import Record
from profiler.runner import Outcome, Task
from profiler.spec import RunSpec
from profiler.store import Store
from profiler.terminal import Watch
from profiler.validation import compare
from profiler.validation.compare import Entry
from profiler.validation.result import CellInfo, GroupInfo, Validation

COMMAND = "profiler.validate"


def run(
    entries: Sequence[Entry],
    groups: Sequence[GroupInfo],
    output: Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Validation:
    """Simulate every entry, keep the records and `validation.json` in `output`.

    Raises:
        UsageError: an entry's spec cannot be resolved.
        StoreError: the folder cannot be written.
    """
    found = simulate(
        [entry.spec for entry in entries],
        output,
        labels={entry.spec: f"{entry.group} {entry.case} ({entry.run})" for entry in entries},
        workers=workers,
        overwrite=overwrite,
        quiet=quiet,
    )
    records = [found[entry.spec] for entry in entries]
    validation = Validation(
        command=command,
        environments={
            str(record.environment.get("fingerprint", "")): record.environment for record in records
        },
        groups=list(groups),
        cells=[_cell(entry, record) for entry, record in zip(entries, records, strict=True)],
        figures=[
            figure
            for entry, record in zip(entries, records, strict=True)
            for figure in compare.figures(entry, record)
        ],
    )
    replace_file(output / "validation.json", validation.to_json().encode("utf-8"))
    return validation


def simulate(
    specs: Sequence[RunSpec],
    output: Path,
    *,
    labels: Mapping[RunSpec, str] | None = None,
    workers: int,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[RunSpec, Record]:
    """The record of each spec, in a store in `output`.

    Args:
        labels: What names a spec in the progress; by default its own label.
    """
    store = Store(output)
    store.prepare()
    if min(workers, len(specs)) > 1:
        start_server(warm=True)
    tasks: dict[str, Task] = {}
    keys: dict[RunSpec, str] = {}
    for spec in dict.fromkeys(specs):
        (task,) = runner.plan([spec])
        keys[spec] = task.id or spec.to_json()
        tasks.setdefault(keys[spec], task)
    ended: dict[str, Record] = {}

    def label(spec: RunSpec) -> str:
        return (labels or {}).get(spec) or grid.label(spec)

    with Watch(len(tasks), quiet=quiet, command=COMMAND, label=label) as watch:
        outcomes = runner.run_tasks(
            list(tasks.values()),
            store,
            workers=workers,
            overwrite=overwrite,
            retry_failed=True,
            warn=watch.warn,
            started=watch.started,
        )
        with closing(outcomes):
            for outcome in outcomes:
                watch.ended(outcome)
                ended[outcome.task.id or outcome.task.spec.to_json()] = _record(outcome)
    return {spec: ended[key] for spec, key in keys.items()}


def _record(outcome: Outcome) -> Record:
    if outcome.record is None:
        raise UsageError(outcome.usage_error)
    return outcome.record


def _cell(entry: Entry, record: Record) -> CellInfo:
    return CellInfo(
        id=record.id,
        case=entry.case,
        group=entry.group,
        run=entry.run,
        label=record.label,
        status=record.status,
        error=record.error or "",
        fingerprint=str(record.environment.get("fingerprint", "")),
        versions=compare.differing(entry, record),
        approximations=record.approximations,
    )
