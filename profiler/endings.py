"""How a measured run ended, as a record's status and one line of text."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from profiler.errors import UnsupportedError
from profiler.hardware.host_memory import Available
from profiler.record import Status
from profiler.report.units import gib_unit

#: Lines of a log that are kept.
KEPT_LINES = 20

#: Lines of a log that a record's error repeats.
_SAID_LINES = 3

#: What torch, CUDA's libraries and C++ say when memory is out, in exceptions of general types.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


@dataclass
class Ending:
    """What is known of a process that left no record.

    `returncode` is the process's, None if it could not be ended. `stopped` says why it was ended
    from here, "" if it ended by itself. Resident memory is in bytes and was sampled, so that the
    last moments are not in it; it is 0 if there was no sample. `oom_killed` is whether the kernel
    killed a process for want of memory meanwhile, None where it does not say.
    """

    returncode: int | None = None
    seconds: float = 0.0
    stopped: Literal["", "timeout", "memory"] = ""
    timeout: float | None = None
    rss_last: int = 0
    rss_peak: int = 0
    available: Available | None = None
    oom_killed: bool | None = None
    log: list[str] = field(default_factory=list)

    @property
    def process(self) -> dict[str, int]:
        """The record's `memory.process`."""
        return {"rss_last": self.rss_last, "rss_peak": self.rss_peak}

    def describe(self) -> tuple[Status, str]:
        """The record's status and error."""
        status, event, detail = self._reason()
        facts = [f"{event} after {self.seconds:.1f} s{detail}", self._memory()]
        said = telling(self.log)
        if said:
            facts.append("last in its log: " + " | ".join(said))
        return status, "; ".join(fact for fact in facts if fact)

    def _reason(self) -> tuple[Status, str, str]:
        """The status, what happened, and what more there is to say about it."""
        if self.stopped == "memory":
            assert self.available is not None
            left = (
                f" with {_gib(self.available.nbytes)} of {_gib(self.available.limit)} left "
                f"{self.available.where}, less than the {_gib(self.available.reserve)} that are "
                "kept free"
            )
            return "oom", "out of memory: stopped", left
        if self.stopped == "timeout":
            return "timeout", "stopped without a result", f" (--timeout {self.timeout:g})"
        code = self.returncode
        if code is None:
            return "crashed", "the process could not be ended; given up", ""
        if code >= 0:
            return "crashed", f"the process ended without a result (exit code {code})", ""
        name = _signal(-code)
        if name == "SIGKILL" and self.oom_killed:
            return (
                "oom",
                "out of memory: killed by SIGKILL",
                " by the kernel's out-of-memory killer",
            )
        if name == "SIGABRT" and any("std::bad_alloc" in line for line in self.log):
            return "oom", "out of memory: ended by SIGABRT", " (std::bad_alloc)"
        detail = ""
        if name == "SIGKILL":
            killer = "by the kernel's out-of-memory killer, the usual reason"
            detail = f", not {killer}" if self.oom_killed is False else f", likely {killer}"
        return "crashed", f"the process was killed by {name}", detail

    def _memory(self) -> str:
        if not self.rss_last:
            return ""
        text = f"resident memory last seen {_gib(self.rss_last)}"
        if self.available is not None and self.stopped != "memory":
            text += f" with {_gib(self.available.nbytes)} more available {self.available.where}"
        return text


def of_exception(error: BaseException) -> tuple[Status, str]:
    """The status and error of a run that raised."""
    if isinstance(error, UnsupportedError):
        return "unsupported", str(error)
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, MemoryError) or _is_torch_oom(error):
        return "oom", f"out of memory: {said}"[:500]
    return "failed", said[:500]


def _is_torch_oom(error: BaseException) -> bool:
    # By name: torch.OutOfMemoryError (torch.cuda.OutOfMemoryError is the same), torch not imported.
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OUT_OF_MEMORY)


def last_lines(path: Path) -> list[str]:
    """The last lines of a log that say something, at most `KEPT_LINES`, each of at most 500
    letters. A log that cannot be read has none."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 65536))
            text = log.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip()[:500] for line in text.splitlines() if line.strip()]
    return lines[-KEPT_LINES:]


def telling(log: Sequence[str]) -> list[str]:
    """The few lines of a log that say what happened."""
    # The interpreter's fault handler names the signal first and the call stack's inmost frames.
    for number, line in enumerate(log):
        if line.startswith("Fatal Python error"):
            return [one.strip() for one in log[number : number + _SAID_LINES]]
    return [line.strip() for line in log[-_SAID_LINES:]]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _gib(nbytes: int) -> str:
    return gib_unit(nbytes, 2)
