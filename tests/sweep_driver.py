"""`python -m profiler.sweep` over fake cells, for tests that need a process of its own."""

from __future__ import annotations

import sys

import fake_cells

from profiler import report, sweep

if __name__ == "__main__":
    sys.modules.update(fake_cells.modules())
    report.build = fake_cells.build  # type: ignore[assignment]
    sys.exit(sweep.main())
