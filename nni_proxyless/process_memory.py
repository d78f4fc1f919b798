"""What a process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of handing it back and faulting it in again at the next run.

    Whether it hands a network's activations back depends on the heap's history, and with it 5 to 20 % of an eager
    network's latency and of a training step: the same calibration that fits networks within 1 % with memory kept
    missed them by 5 to 7 % without. It also lets each network have the memory of the one before it. For the rest of
    the process, as glibc cannot be asked what it did before; elsewhere a no-op.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def peak_memory_mib() -> float:
    """The most memory that this process has had resident, in MiB; on Windows, which does not say, 0."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux KiB
