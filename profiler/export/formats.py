"""The formats by name. A module per format: `render` gives its content, text or bytes."""

from __future__ import annotations

from dataclasses import dataclass

#: Names of `profiler.export.flat.TABLES` and of `profiler.export.printed.NAMES`, which tests hold
#: equal: the command's help must not wait for what makes them.
FLAT = ("cells", "modules", "holders", "timeline", "kernels")
PRINTED = (*FLAT, "breakdown", "phases", "fits")


@dataclass(frozen=True, slots=True)
class Format:
    """A format. `tables` is what it can hold of records; empty: it shows one run's trace.

    `module` has `render(records, table, columns)`, or `render(record, trace)`.
    """

    module: str
    suffix: str
    binary: bool
    tables: tuple[str, ...]
    help: str

    @property
    def of_traces(self) -> bool:
        """Whether it needs the trace that `--keep-traces` keeps."""
        return not self.tables


FORMATS = {
    "csv": Format("csv", ".csv", False, FLAT, "one flat table, safe for a spreadsheet"),
    "parquet": Format("parquet", ".parquet", True, FLAT, "the same, typed; needs pyarrow"),
    "latex": Format("latex", ".tex", False, PRINTED, "tables for a paper, with booktabs"),
    "markdown": Format("markdown", ".md", False, PRINTED, "tables for a README"),
    "chrome": Format(
        "chrome", ".trace.json", False, (), "a timeline for ui.perfetto.dev, of a trace"
    ),
    "memory_viz": Format(
        "memory_viz", ".pickle", True, (), "a snapshot for pytorch.org/memory_viz, of a trace"
    ),
}
