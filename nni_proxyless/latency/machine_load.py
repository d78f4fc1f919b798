"""Load of the machine during a measurement: CPU time that other programs used, and time that a hypervisor took away."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class MachineLoad:
    """Load of the machine during a measurement.

    Attributes:
        other_cores: Mean number of cores that other programs kept busy.
        stolen: Share of the machine's CPU time that a hypervisor gave to other machines, 0 to 1. Always 0 where the
            operating system does not count it, as on macOS and Windows.
        cores: Number of logical cores of the machine.
    """

    other_cores: float
    stolen: float
    cores: int


class LoadMeter:
    """Measures the load of the machine from its creation on, without the CPU time of this process."""

    def __init__(self) -> None:
        self._start = time.monotonic(), *_cpu_seconds()

    def read(self) -> MachineLoad:
        """Return the mean load since the creation of the meter."""
        start, busy, stolen, own = self._start
        now = _cpu_seconds()
        seconds = max(time.monotonic() - start, 1e-3)
        cores = psutil.cpu_count() or 1
        others = (now[0] - busy) - (now[2] - own)
        return MachineLoad(
            min(max(others / seconds, 0.0), float(cores)),
            min(max((now[1] - stolen) / (seconds * cores), 0.0), 1.0),
            cores,
        )


def _cpu_seconds() -> tuple[float, float, float]:
    """CPU seconds so far: those of all programs, those stolen, and those of this process."""
    times, own = psutil.cpu_times()._asdict(), os.times()
    # Linux counts the time of guests in `user` and `nice`, too.
    not_busy = ("idle", "iowait", "steal", "guest", "guest_nice")
    busy = sum(value for name, value in times.items() if name not in not_busy)
    return busy, times.get("steal", 0.0), own.user + own.system
