"""A cell's model on the simulated bench: loaded, then with its method, then run."""

from __future__ import annotations

from functools import cached_property

from profiler.bench.load import Load
from profiler.bench.repetition.log import OpLog
from profiler.bench.simulated import simulate
from profiler.hardware.devices import Device
from profiler.resolve import Cell
from profiler.subject.subject import Subject, build, load_base
from profiler.trace import Block, Trace


class Loaded:
    """A cell's model as it is loaded; the method is put on it once `subject` is asked for.

    Args:
        device: the GPU that is simulated, None for this CPU.

    Attributes:
        load: what loading allocates; None on a CPU.
        base: the model; used up by `subject`.
        blocks, events: of the load, before any weight is there.
    """

    def __init__(self, cell: Cell, device: Device | None) -> None:
        self.cell = cell
        self.device = device
        self.load = None if device is None else Load.of(cell.spec, device)
        self.base = load_base(cell, load=self.load)
        self.blocks: list[Block] = [] if self.load is None else list(self.load.blocks)
        self.events: list[int] = [] if self.load is None else list(self.load.events)

    @cached_property
    def subject(self) -> Subject:
        """The model with its method.

        Raises:
            UsageError, UnsupportedError: see `profiler.subject.subject.build`.
        """
        return build(self.cell, load=self.load, base=self.base)

    def trace(self, log: OpLog | None = None) -> Trace:
        """Run the steps, which uses the subject up; `log` is as of `simulate`."""
        return simulate(self.subject, self.cell.spec, self.device, self.load, log=log)
