"""`python -m profiler.bench.child ANSWER PARENT [TRACES]`: measures one cell, for
`profiler.isolation`.

The cell's RunSpec is JSON on stdin. The answer, written at the path ANSWER in one piece, is the
record, or `{"failure": ..., "error": ...}` where it gave none: a record's status, or "usage".
PARENT is the process id of who started it, TRACES the folder of a store that keeps the run's trace.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from profiler.endings import of_exception
from profiler.errors import UsageError
from profiler.executors.orphans import die_with_parent
from profiler.files import replace_file
from profiler.noise import hush
from profiler.record import Record
from profiler.spec import RunSpec


def main(measure: Callable[[RunSpec], Record] | None = None) -> int:
    """Answer what is asked on stdin. Returns the exit status."""
    answer, parent = Path(sys.argv[1]), int(sys.argv[2])
    traces = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    die_with_parent(parent)
    _volunteer()
    spec = RunSpec.from_dict(json.load(sys.stdin))
    hush()
    try:
        text = (measure or partial(_measure, traces=traces))(spec).to_json()
    except UsageError as error:
        text = json.dumps({"failure": "usage", "error": str(error)})
    except Exception as error:
        traceback.print_exc()
        status, said = of_exception(error)
        text = json.dumps({"failure": status, "error": said})
    replace_file(answer, text.encode("utf-8", "backslashreplace"))
    return 0


def _measure(spec: RunSpec, *, traces: Path | None) -> Record:
    from profiler.resolve import resolve

    cell = resolve(spec)
    from profiler.bench.measured import measure

    return measure(cell, traces=traces)


def _volunteer() -> None:
    """If the kernel must kill a process for want of memory, let it be this one."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    sys.exit(main())
