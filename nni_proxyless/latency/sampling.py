"""Sampling of workloads: interleaved, warmed up, repeated until the spread is small, and corrected for slowdowns.

A shared machine slows everything down by 5 to 15 % for seconds at a time. The plain median latency of a network varies
by 2.3 to 3 % from one five-second window to the next. Relative to a reference network that runs in between, it varies
by only 0.6 % (docs/latency.md). Each sample is therefore divided by the slowdown of the reference at that moment. The
slowdown is the cost of the reference divided by the tenth percentile of its costs, which stands for an undisturbed
machine.

The location of a network's memory matters as much. With sixteen networks alive at once, those prepared first were up to
20 % faster than the others for the whole life of the process. Operators and networks are therefore prepared when their
turn comes and freed afterwards, so that each one gets the memory of the one before it.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..lazy import names_of_modules
from .arrays import FloatArray
from .protocol import Protocol

if TYPE_CHECKING:
    from .backends.base import Workload
    from .journal import Journal

Progress = Callable[[str, int, int], None]
REFERENCE = "reference"


@dataclass(frozen=True)
class Samples:
    """Measured costs of one run of a workload, in the order in which they were taken.

    Attributes:
        raw: Costs as reported by the clock or the command, in the backend's unit, usually milliseconds.
        slowdown: Slowdown of the machine at each sample, relative to the undisturbed machine (1 means undisturbed).
            Empty without a reference.
        reference: Cost of the reference on the undisturbed machine, in this process; `None` without a reference.
    """

    raw: tuple[float, ...]
    slowdown: tuple[float, ...] = ()
    reference: float | None = None

    @property
    def values(self) -> FloatArray:
        """The samples divided by the slowdown, shape (num_samples,)."""
        raw = np.asarray(self.raw, dtype=np.float64)
        return raw / np.asarray(self.slowdown, dtype=np.float64) if self.slowdown else raw

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def ratio(self) -> float:
        """The median divided by the cost of the reference; the plain median without a reference."""
        return self.median / (self.reference or 1.0)

    def at_level(self, reference: float | None) -> Samples:
        """Rescale the samples to a machine on which the reference costs `reference`."""
        if reference is None or self.reference is None:
            return self
        factor = self.reference / reference
        return Samples(self.raw, tuple(slow * factor for slow in self.slowdown), reference)

    @property
    def spread(self) -> float:
        """Standard error of the median: 1.2533 σ / √n, with σ estimated from the interquartile range."""
        low, high = np.percentile(self.values, (25, 75))
        return float(1.2533 * (high - low) / 1.349 / np.sqrt(len(self.raw)))


class Timeline:
    """Time-stamped samples of several workloads and of the reference.

    Args:
        journal: Journal that stores each sample as it is taken. Samples that it already holds are reused.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self._taken: dict[str, list[tuple[float, float]]] = {}
        for name, moment, value in journal.samples() if journal else ():
            self._taken.setdefault(name, []).append((moment, value))

    def add(self, name: str, value: float) -> None:
        moment = time.time()
        self._taken.setdefault(name, []).append((moment, value))
        if self._journal:
            self._journal.write(name, moment, value)

    def count(self, name: str) -> int:
        return len(self._taken.get(name, ()))

    def samples(self, name: str, stage: str = "") -> Samples:
        moments, values = (np.array(column) for column in zip(*self._taken[name], strict=True))
        reference = self._taken.get(f"{REFERENCE} {stage}")
        if not reference:
            return Samples(tuple(values.tolist()))
        when, cost = (np.array(column) for column in zip(*reference, strict=True))
        level = float(np.percentile(cost, 10))
        return Samples(tuple(values.tolist()), tuple(np.interp(moments, when, cost / level).tolist()), level)


def sample_interleaved(
    workloads: Mapping[str, Callable[[], Workload]],
    protocol: Protocol,
    *,
    reference: Workload | None = None,
    clocked: bool = True,
    timeline: Timeline | None = None,
    stage: str = "",
    kind: str = "networks",
    progress: Progress | None = None,
) -> dict[str, Samples]:
    """Sample several workloads round by round in random order, so that a slow period affects all of them alike.

    Args:
        workloads: Function that prepares each workload, by the workload's name. The function is called when the
            workload's turn comes, and the workload is freed afterwards.
        protocol: Measuring protocol.
        reference: Workload that is sampled in between to track the slowdown of the machine.
        clocked: Whether this process runs and times the workloads. Only then are they warmed up and repeated.
        timeline: Timeline that receives the samples. The timeline of an interrupted measurement is continued.
        stage: Name of this part of the measurement. It separates the reference's samples of several parts that share a
            timeline, because the reference runs differently among operators than among networks.
        kind: What the workloads are, in the plural, for the text of the progress.
        progress: Callback that receives a text, the number of workloads finished in the current round and the number
            of workloads in the current round. The text begins with `kind`, so that it can follow the two numbers.

    Returns:
        Samples of each workload, by the workload's name.
    """
    timeline = timeline or Timeline()
    plans: dict[str, tuple[int, int]] = {}
    reference_plan = _plan(reference, protocol, clocked) if reference else (1, 1)
    shuffler = random.Random(0)
    collecting = gc.isenabled()
    gc.disable()
    try:
        last_reference = -np.inf
        for round_number in range(1, protocol.max_rounds + 1):
            due = round_number * protocol.samples_per_turn
            waiting = [name for name in workloads if timeline.count(name) < due]
            shuffler.shuffle(waiting)
            for done, name in enumerate(waiting):
                workload = workloads[name]()
                if name not in plans:
                    plans[name] = _plan(workload, protocol, clocked)
                while timeline.count(name) < due:
                    if reference and time.perf_counter() - last_reference >= protocol.reference_every_s:
                        timeline.add(f"{REFERENCE} {stage}", _sample(reference, reference_plan))
                        last_reference = time.perf_counter()
                    timeline.add(name, _sample(workload, plans[name]))
                del workload
                if progress:
                    text = f"{kind}, round {round_number} of at most {protocol.max_rounds}"
                    progress(text, done + 1, len(waiting))
            if reference and waiting:
                timeline.add(f"{REFERENCE} {stage}", _sample(reference, reference_plan))
                last_reference = time.perf_counter()
            if round_number >= protocol.min_rounds and all(
                samples.spread <= protocol.max_relative_spread * samples.median
                for samples in (timeline.samples(name, stage) for name in workloads)
            ):
                break
    finally:
        if collecting:
            gc.enable()
    return {name: timeline.samples(name, stage) for name in workloads}


def _plan(workload: Workload, protocol: Protocol, clocked: bool) -> tuple[int, int]:
    """Return the number of untimed runs before a sample and the number of timed runs in a sample."""
    if not clocked:
        return 0, 1
    seconds = _time_once(workload, protocol.warmup_s)
    return max(1, round(protocol.settle_s / seconds)), max(1, round(protocol.sample_s / seconds))


def _sample(workload: Workload, plan: tuple[int, int]) -> float:
    settling, repeats = plan
    for _ in range(settling):
        workload.run()
    return workload.sample(repeats)


def _time_once(workload: Workload, warmup_s: float) -> float:
    """Warm the workload up and return the approximate duration of one run in seconds."""
    workload.run()
    start, runs = time.perf_counter(), 0
    while runs < 2 or time.perf_counter() - start < warmup_s:
        workload.run()
        runs += 1
    return (time.perf_counter() - start) / runs


# Version 0.1 had the names of `latency.protocol` here.
__getattr__ = names_of_modules(__name__, ["latency.protocol"])
