"""Description of the device on which latencies are measured."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Device:
    """The device that was measured.

    Attributes:
        name: Host name, or a name given by the user.
        processor: Model of the processor or accelerator.
        cores: Number of cores that the measuring process may use; `None` if unknown.
    """

    name: str
    processor: str
    cores: int | None


def this_device() -> Device:
    """Describe the machine that runs this process."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Device(platform.node() or "unknown", _processor(), cores)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"
