"""Text of a time forecast: a range between an idle and a busy machine, with its assumptions.

The steps that are timed share the machine with whatever runs then. Later, other programs may have ended, or begun.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..progress import duration

if TYPE_CHECKING:
    from ..training.step_probe import Timing

_LEAST_SHARE = 0.1  # of the cores that a training is given, even if others keep all of them busy
_QUIET = 0.1  # cores that other programs use on a machine that counts as idle


@dataclass(frozen=True)
class Load:
    """Share of the machine that a training gets.

    Attributes:
        threads: Number of threads of the training; 0 if a GPU trains, so that the load of the cores hardly matters.
        other_cores: Mean number of cores that other programs used while steps were timed.
        cores: Number of cores of the machine.
    """

    threads: int
    other_cores: float
    cores: int

    @property
    def when_idle(self) -> float:
        """Duration on an otherwise idle machine, relative to that under this load: at most 1.

        Now the training gets the cores that others leave. On an idle machine it gets one for each of its threads.
        """
        if not self.threads:
            return 1.0
        wanted = min(self.threads, self.cores)
        return min(1.0, max((self.cores - self.other_cores) / wanted, _LEAST_SHARE))

    @property
    def when_crowded(self) -> float:
        """Duration while another program uses all cores, relative to that on an idle machine: at least 1.

        The threads of both share the cores equally.
        """
        if not self.threads:
            return 1.0
        wanted = min(self.threads, self.cores)
        return max(1.0, wanted * (self.threads + self.cores) / (self.threads * self.cores))


class LoadWatch:
    """Measures from its creation on how many cores other programs use."""

    def __init__(self) -> None:
        from ..latency.machine_load import LoadMeter

        self._meter = LoadMeter()
        self._start = time.monotonic(), _of_children()

    def read(self) -> Load:
        """Return the load since the creation."""
        import torch

        found = self._meter.read()
        seconds = max(time.monotonic() - self._start[0], 1e-3)
        loading = (_of_children() - self._start[1]) / seconds  # processes of the training that load data
        threads = 0 if torch.cuda.is_available() else torch.get_num_threads()
        return Load(threads, max(found.other_cores - loading, 0.0), found.cores)


def ends(found: Timing, load: Load) -> tuple[float, float]:
    """Return the ends of the range in seconds: on an idle machine, and while another program uses all cores.

    If the machine was even busier, the longer end is that under its load.
    """
    low = min(found.low, found.mean * load.when_idle)
    return low, max(found.high, found.mean * load.when_idle * load.when_crowded)


def time_lines(found: Timing, load: Load, steps: int, what: str = "") -> list[str]:
    """Say how long something takes, and under which assumptions.

    Args:
        found: Duration estimated from the steps that were timed.
        load: Load of the machine during these steps.
        steps: Number of these steps.
        what: Description that follows the duration.
    """
    low, high = map(duration, ends(found, load))
    by = f"from {steps} steps that were just run here"
    if low == high:
        return [f"about {duration(found.mean)}{what}, {by}"]
    lines = [f"{low} to {high}{what}, {by}"]
    lines.append(f"about {duration(found.mean)} if the machine stays as busy as it was: {_others(load)}")
    if load.threads:
        now = found.high >= found.mean * load.when_idle * load.when_crowded
        busy = "one as busy as it was" if now else "one on which another program uses all cores"
        lines.append(f"the range is from an idle machine to {busy}")
    return lines


def _others(load: Load) -> str:
    if load.other_cores < _QUIET:
        return "no other program used its cores"
    return f"other programs used {load.other_cores:.1f} of its {load.cores} cores"


def _of_children() -> float:
    """CPU seconds of the child processes that have ended."""
    found = os.times()
    return found.children_user + found.children_system
