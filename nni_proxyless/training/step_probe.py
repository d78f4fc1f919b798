"""Times a few real training steps, from which a dry run forecasts how long a training takes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from ..process_memory import peak_memory_mib

MOST_S = 4.0  # time that the steps of one kind are timed for, if they are not slower than that
LEAST_CYCLES = 2
MOST_CYCLES = 40
_PACKAGE = __name__.partition(".")[0]


class EnoughStepsError(Exception):
    """Ends a training whose steps have been timed. It never leaves this package's probes."""


@dataclass(frozen=True)
class Timing:
    """Duration of something that is repeated, in seconds.

    Attributes:
        mean: Mean of the timed repetitions.
        low: Their 10th percentile, or the shortest one of fewer than ten.
        high: Their 90th percentile, or the longest one of fewer than ten.
        count: Number of timed steps.
    """

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float], steps_each: int = 1) -> Timing:
        """Summarise durations, each of `steps_each` steps, as the duration of one step."""
        ranked = sorted(value / steps_each for value in seconds)
        low, high = ranked[0], ranked[-1]
        if len(ranked) >= 10:
            tenths = statistics.quantiles(ranked, n=10)
            low, high = tenths[0], tenths[-1]
        return cls(statistics.fmean(ranked), low, high, steps_each * len(ranked))

    def times(self, repetitions: float) -> Timing:
        """Return the duration of a number of repetitions."""
        return Timing(self.mean * repetitions, self.low * repetitions, self.high * repetitions, self.count)

    def plus(self, other: Timing) -> Timing:
        """Return the duration of this followed by another one."""
        return Timing(self.mean + other.mean, self.low + other.low, self.high + other.high, self.count + other.count)


NOTHING = Timing(0.0, 0.0, 0.0, 0)


class StepProbe(pl.Callback):
    """Times the steps of a training from the end of one to the end of the next, with the loading of their images.

    It ends the training with `EnoughStepsError`, at the latest at the end of the first epoch.

    Args:
        cycle: Number of consecutive steps that are timed together, because they are of different kinds.
        then: Function that is called before the training ends, while its modules are on their device.
        each: Function that is called after each step, and counts as a part of it.
    """

    def __init__(
        self, cycle: int = 1, then: Callable[[], object] = lambda: None, each: Callable[[], object] = lambda: None
    ) -> None:
        self._cycle = cycle
        self._then = then
        self._each = each
        self._ends: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self._each()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._ends.append(time.perf_counter())
        cycles = (len(self._ends) - 1) // self._cycle
        long_enough = self._ends[-1] - self._ends[0] >= MOST_S and cycles >= LEAST_CYCLES
        if long_enough or cycles >= MOST_CYCLES:
            self._end()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self._end()

    def _end(self) -> None:
        self._then()
        raise EnoughStepsError

    @property
    def timing(self) -> Timing | None:
        """Duration of a step; `None` if the data have too few batches to tell."""
        ends = self._ends[:: self._cycle]
        seconds = [after - before for before, after in itertools.pairwise(ends)]
        return Timing.of(seconds, self._cycle) if seconds else None


@dataclass(frozen=True)
class Memory:
    """Peak memory.

    Attributes:
        process_mib: Peak resident memory of this process in MiB; 0 where it is unknown.
        gpu_mib: Peak memory of the GPU that this process had allocated, in MiB; `None` without a GPU.
    """

    process_mib: float
    gpu_mib: float | None


def memory_so_far() -> Memory:
    """Return the peak memory of this process, which has only timed steps so far."""
    return Memory(peak_memory_mib(), torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None)


@contextlib.contextmanager
def probing() -> Iterator[None]:
    """Context manager around a training that is only timed. Its log is left out, and its end is not an error."""
    logs = [logging.getLogger(name) for name in (_PACKAGE, "nni")]
    before = [log.level for log in logs]
    for log in logs:  # NNI logs the end as an error of the model
        log.setLevel(logging.CRITICAL)
    try:
        with contextlib.suppress(EnoughStepsError):
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)
