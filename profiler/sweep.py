"""`python -m profiler.sweep [STUDY] [flags]`: profile the cells of a study or of a grid.

Data goes to stdout, progress and warnings to stderr. Heavy imports wait until there is a cell to
run, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import command, flags, grid, stdout, studies
from profiler.errors import UsageError
from profiler.spec import RunSpec

if TYPE_CHECKING:
    from profiler.executors.elsewhere import Elsewhere
    from profiler.record import Record
    from profiler.runner import Outcome, Task
    from profiler.store import Store

_COMMAND = command.Command(
    "profiler.sweep", interrupted="interrupted; the cells that were done are kept"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2 or 130."""
    return _COMMAND.run(_sweep, arguments)


def _sweep(arguments: Sequence[str]) -> int:
    request = flags.parse(arguments)
    if request.python is not None:
        from profiler import other_python

        return other_python.run(request.python, other_python.without(arguments))
    title, specs, baseline = _cells(request)
    output = request.output or Path("reports", _name(request))

    from profiler.executors.elsewhere import asked_for
    from profiler.noise import hush
    from profiler.resolve import check

    elsewhere = asked_for(request.executor, request.address, request.slurm_args, output)
    for spec in specs:
        check(spec, here=elsewhere is None)
    hush()

    from profiler import runner
    from profiler.executors.local import start_server
    from profiler.hardware import devices
    from profiler.store import Store

    simulated = [spec for spec in specs if spec.device not in devices.MEASURED]
    if min(request.workers, len(simulated)) > 1 and not request.dry_run and elsewhere is None:
        start_server(warm=True)
    tasks = runner.plan(specs, here=elsewhere is None)
    store = Store(output)
    if request.dry_run:
        stdout.to_stdout(lambda: _list(tasks, store, request.format))
        return 0
    store.prepare()
    outcomes = _run(tasks, store, request, elsewhere)
    records = [one.record for one in outcomes if one.record is not None]
    if records:
        varying = grid.varying([task.spec for task in tasks])
        stdout.to_stdout(lambda: _show(records, varying, request.format))
        page = _report(records, output, title, arguments, baseline)
        if request.format == "table":
            stdout.to_stdout(lambda: print(f"report: {page}"))
        elif not request.quiet:
            _COMMAND.say(f"report: {page}")
    wrong = [one for one in outcomes if one.usage_error]
    if wrong:
        more = f", and {len(wrong) - 1} more cells" if len(wrong) > 1 else ""
        cell = f" (in {grid.label(wrong[0].task.spec)}{more})" if len(tasks) > 1 else ""
        raise UsageError(wrong[0].usage_error + cell)
    complete = all(record.answered for record in records) and all(one.kept for one in outcomes)
    return 0 if complete else 1


def _cells(request: flags.Request) -> tuple[str, list[RunSpec], str]:
    """The title, the cells and the study's baseline of what was asked for."""
    baseline = ""
    if request.study is None and "model" in request.fields:
        if request.quick:
            raise UsageError("--quick is a study's small version; name a study or leave it out")
        title, specs = "Sweep", grid.span(request.fields)
    else:
        study = studies.load(request.study or studies.DEFAULT, quick=request.quick)
        title, specs = study.title, grid.override(study.cells, request.fields)
        baseline = study.baseline
    if request.filter is None:
        return title, specs, baseline
    chosen = grid.matching(request.filter, specs)
    if not chosen:
        raise UsageError(
            f"--filter {request.filter!r} leaves none of the {len(specs)} cells; "
            f"the first is labelled {grid.label(specs[0])!r}"
        )
    return title, chosen, baseline


def _name(request: flags.Request) -> str:
    """Name of the default output folder."""
    if request.study is None:
        return "sweep" if "model" in request.fields else studies.DEFAULT
    return Path(request.study).stem


def _run(
    tasks: Sequence[Task], store: Store, request: flags.Request, elsewhere: Elsewhere | None
) -> list[Outcome]:
    """Run the tasks, showing progress; the outcomes in the tasks' order."""
    from contextlib import closing
    from functools import partial

    from profiler.runner import run_cell, run_tasks
    from profiler.terminal import Watch

    ended: dict[int, Outcome] = {}
    with Watch(len(tasks), quiet=request.quiet) as watch:
        outcomes = run_tasks(
            tasks,
            store,
            workers=request.workers,
            elsewhere=elsewhere,
            overwrite=request.overwrite,
            retry_failed=request.retry_failed,
            keep_traces=request.keep_traces,
            warn=watch.warn,
            started=watch.started,
            job=partial(
                run_cell,
                ignore_memory=request.ignore_memory,
                timeout=request.timeout,
                traces=store.folder if request.keep_traces else None,
                full_trace=request.full_trace,
            ),
        )
        with closing(outcomes):
            for outcome in outcomes:
                ended[id(outcome.task)] = outcome
                watch.ended(outcome)
    return [ended[id(task)] for task in tasks]


def _show(records: Sequence[Record], varying: Sequence[str], format: str) -> None:
    if format == "json":
        print("[" + ",\n".join(record.to_json() for record in records) + "]")
    elif format == "csv":
        from profiler.export import csv

        csv.write(records, sys.stdout)
    else:
        from profiler import terminal

        heading = terminal.heading(records, varying)
        table = terminal.table(records, varying)
        print(terminal.text(sys.stdout, heading, table, *terminal.runs(records)), end="")


def _list(tasks: Sequence[Task], store: Store, format: str) -> None:
    """The cells of a dry run. What is stored is known by its file's name: reading thousands of
    records would take minutes."""
    from profiler.environment import environment

    by_id = store.fingerprints()
    rows = []
    for task in tasks:
        here = environment(task.spec.device)["fingerprint"]
        rows.append((grid.label(task.spec), task.id or "-", here in by_id.get(task.id, ())))
    if format == "json":
        keys = ("label", "id", "stored", "spec")
        full = [(*row, task.spec.to_dict()) for row, task in zip(rows, tasks, strict=True)]
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in full], indent=1))
    elif format == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("label", "id", "stored"))
        writer.writerows(rows)
    else:
        from profiler import terminal

        print(terminal.text(sys.stdout, terminal.cells(rows)), end="")


def _report(
    records: Sequence[Record], output: Path, title: str, arguments: Sequence[str], baseline: str
) -> Path:
    from profiler import report
    from profiler.other_python import NAMED
    from profiler.report import about
    from profiler.report.baseline import is_of

    # Flags may have taken the study's baseline away, or it may have no result.
    if not any(is_of(record, baseline) for record in records):
        baseline = ""
    named = os.environ.get(NAMED)
    chosen = ["--python", named] if named else []
    command = shlex.join(["python", "-m", "profiler.sweep", *arguments, *chosen])
    about.write(output, about.About(title=title, command=command, baseline=baseline))
    return report.build(list(records), output, title=title, command=command, baseline=baseline)


if __name__ == "__main__":
    command.start(main)
