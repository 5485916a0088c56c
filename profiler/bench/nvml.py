"""Energy, power, clocks, temperature and memory of a CUDA device beside a measured run, from NVML.

A thread asks the driver (nvidia-ml-py, which is `import pynvml`) some times a second; it only asks,
and changes no setting. Without a driver, a card or a counter there is no figure, and never an
error. No GPU has run this: it is tested against a stand-in for pynvml only.

https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from profiler.record import DeviceState, Energy

#: What is asked of the device in each sample beside its power and memory: the function, and the
#: numbers of nvml.h for what it is asked (nvmlClockType_t, nvmlTemperatureSensors_t).
_ASKED = {
    "sm_clock_mhz": ("nvmlDeviceGetClockInfo", 1),
    "memory_clock_mhz": ("nvmlDeviceGetClockInfo", 2),
    "temperature_celsius": ("nvmlDeviceGetTemperature", 0),
}

#: Reasons for a lower clock than the device could have: power cap, slowdowns by the hardware, by
#: heat, by the power supply (nvml.h, nvmlClocksEventReason*).
_LIMITS = 0x4 | 0x8 | 0x20 | 0x40 | 0x80


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the device did between start and end of a sampler.

    `joules` is the whole device's, `source` says from which of its figures: the driver's energy
    counter (Volta and later; it advances every 20 to 100 ms, so that a window of less than a
    second is coarse), or the power samples' integral. `device_memory` is the most bytes in use on
    the device by all processes, `process_memory` the most by this process, its CUDA context
    included; None where the driver does not say (a container with process ids of its own).
    `samples` has what the thread was told, by the names of `DeviceState`.
    """

    seconds: float
    joules: float | None
    source: str | None
    device_memory: int | None
    process_memory: int | None
    samples: dict[str, list[float]] = field(default_factory=dict)

    def energy(self, steps: int) -> Energy | None:
        """Energy of one of `steps` equal steps that filled the window."""
        if self.joules is None or self.seconds <= 0:
            return None
        return Energy(
            joules=self.joules / steps,
            mean_watts=self.joules / self.seconds,
            source=self.source,
        )

    def state(self) -> DeviceState | None:
        """The samples in short, None if the driver told nothing."""
        samples = dict(self.samples)
        limited = samples.pop("limited", None)
        count = max(map(len, self.samples.values()), default=0)
        if not count:
            return None
        return DeviceState(
            seconds=self.seconds,
            samples=count,
            limited=statistics.fmean(limited) if limited else None,
            **{
                name: {
                    "min": min(values),
                    "median": statistics.median(values),
                    "max": max(values),
                }
                for name, values in samples.items()
                if values
            },
        )


class Sampler:
    """Samples a device while the body of a `with` runs; used once.

    >>> with Sampler() as sampler:
    ...     pass  # steps, and torch.cuda.synchronize() after the last
    >>> sampler.reading  # doctest: +SKIP

    Args:
        uuid: The device's, as torch gives it (`torch.cuda.get_device_properties(0).uuid`): the
            numbers of CUDA and of NVML differ under CUDA_VISIBLE_DEVICES. Without it NVML's first.
        interval: Seconds between samples of the thread.
        library: pynvml, or what stands in for it.
        clock: Seconds, as `time.perf_counter`.
    """

    def __init__(
        self,
        uuid: str | None = None,
        *,
        interval: float = 0.02,
        library: Any = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.reading: Reading | None = None
        self._uuid = uuid
        self._interval = interval
        self._library = library
        self._clock = clock
        self._device: Any = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watts: list[tuple[float, float]] = []
        self._device_memory: list[int] = []
        self._process_memory: list[int] = []
        self._samples: dict[str, list[float]] = {}
        self._started: tuple[float, Any] = (0.0, None)

    def __enter__(self) -> Sampler:
        self._device = self._open()
        if self._device is not None:
            self._sample()
            self._started = (self._clock(), self._millijoules())
            self._thread = threading.Thread(target=self._work, name="nvml", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        millijoules, ended = self._millijoules(), self._clock()
        self._stop.set()
        self._thread.join()
        self._sample()
        self._ask("nvmlShutdown")
        seconds = ended - self._started[0]
        joules, source = self._joules(millijoules, seconds)
        self.reading = Reading(
            seconds=seconds,
            joules=joules,
            source=source,
            device_memory=max(self._device_memory, default=None),
            process_memory=max(self._process_memory, default=None),
            samples=self._samples,
        )

    def _open(self) -> Any:
        """NVML's handle of the device, None if there is none."""
        try:
            if self._library is None:
                import pynvml

                self._library = pynvml
            self._library.nvmlInit()
        except Exception:  # not installed, no driver, no permission
            return None
        if self._uuid is None:
            device = self._ask("nvmlDeviceGetHandleByIndex", 0)
        else:
            uuid = str(self._uuid)
            named = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
            device = self._ask("nvmlDeviceGetHandleByUUID", named)
        if device is None:
            self._ask("nvmlShutdown")
        return device

    def _work(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", self._device)
        if milliwatts is not None:
            self._watts.append((self._clock(), milliwatts / 1e3))
            self._keep("power_watts", milliwatts / 1e3)
        memory = self._ask("nvmlDeviceGetMemoryInfo", self._device)
        if memory is not None:
            self._device_memory.append(int(memory.used))
            self._keep("memory_bytes", int(memory.used))
        for name, (function, what) in _ASKED.items():
            value = self._ask(function, self._device, what)
            if value is not None:
                self._keep(name, float(value))
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", self._device)
        if reasons is None:  # its name before NVML 12.535
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._device)
        if reasons is not None:
            self._keep("limited", float(bool(reasons & _LIMITS)))
        for process in self._ask("nvmlDeviceGetComputeRunningProcesses", self._device) or ():
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                self._process_memory.append(int(process.usedGpuMemory))

    def _keep(self, name: str, value: float) -> None:
        self._samples.setdefault(name, []).append(value)

    def _millijoules(self) -> Any:
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", self._device)

    def _joules(self, millijoules: Any, seconds: float) -> tuple[float | None, str | None]:
        """Energy of the window and where it comes from."""
        before = self._started[1]
        # A counter that stood still has not seen the window.
        if before is not None and millijoules is not None and millijoules > before:
            return (millijoules - before) / 1e3, "energy counter"
        pairs = list(itertools.pairwise(self._watts))
        sampled = sum(after[0] - before[0] for before, after in pairs)
        if sampled <= 0:
            return None, None
        # Trapezoids; the first and the last sample lie just outside the window.
        integral = sum(
            (after[0] - before[0]) * (before[1] + after[1]) / 2 for before, after in pairs
        )
        return integral * seconds / sampled, "power samples"

    def _ask(self, function: str, *arguments: Any) -> Any:
        """What a function of the library answers, None if it cannot."""
        try:
            return getattr(self._library, function)(*arguments)
        except Exception:  # a figure that this card or driver does not have
            return None
