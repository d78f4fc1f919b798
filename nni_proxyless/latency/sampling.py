"""Taking samples: interleaved, warmed up, until the spread is small, with the machine's own slowness taken off.

A shared machine runs everything 5 to 15 % slower for seconds at a time. Measured against a reference network that
runs in between, the latency of another one varies by 0.6 % from one five seconds to the next where its plain median
varies by 2.3 to 3 % (docs/latency.md). So each sample is divided by how much slower than undisturbed the reference
was at that moment; undisturbed is the reference's tenth percentile.

Where a network's memory lies matters as much: of sixteen networks alive at once those prepared first were up to 20 %
faster than the others, for as long as the process lived. So operators and networks are prepared when their turn comes
and freed after it: each gets the memory that the one before had.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .arrays import FloatArray
from .protocol import Protocol

if TYPE_CHECKING:
    from .backends.base import Workload
    from .journal import Journal

Progress = Callable[[str, int, int], None]
REFERENCE = "reference"


@dataclass(frozen=True)
class Samples:
    """What one run cost, one value per round, in the order taken.

    Attributes:
        raw: As the clock (or the command) said, in the backend's unit, usually milliseconds.
        slowdown: How much slower than undisturbed the machine was at that moment; all 1 without a reference.
        reference: What the reference costs undisturbed, in this process; `None` without a reference.
    """

    raw: tuple[float, ...]
    slowdown: tuple[float, ...] = ()
    reference: float | None = None

    @property
    def values(self) -> FloatArray:
        """The samples less the machine's slowness, shape (rounds,)."""
        raw = np.asarray(self.raw, dtype=np.float64)
        return raw / np.asarray(self.slowdown, dtype=np.float64) if self.slowdown else raw

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def ratio(self) -> float:
        """The median in units of the reference; the median itself without one."""
        return self.median / (self.reference or 1.0)

    def at_level(self, reference: float | None) -> Samples:
        """The same samples for a machine on which the reference costs `reference`."""
        if reference is None or self.reference is None:
            return self
        factor = self.reference / reference
        return Samples(self.raw, tuple(slow * factor for slow in self.slowdown), reference)

    @property
    def spread(self) -> float:
        """Standard error of the median: 1.2533 σ / √n, with σ taken from the interquartile range."""
        low, high = np.percentile(self.values, (25, 75))
        return float(1.2533 * (high - low) / 1.349 / np.sqrt(len(self.raw)))


class Timeline:
    """Samples of several workloads with the moment of each, and of the reference among them.

    Args:
        journal: Where samples are kept as they are taken; those it holds already count.
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
    progress: Progress | None = None,
) -> dict[str, Samples]:
    """Sample several workloads round by round in changing order, so that a slow moment hits all of them alike.

    Args:
        workloads: What makes each workload, by name. It is called when the workload's turn comes, and what it made is
            let go afterwards.
        protocol: How long.
        reference: Sampled in between; tells how slow the machine is at each moment.
        clocked: Whether this process runs the workloads: only then are they warmed up and repeated.
        timeline: Where samples go. One of an interrupted measurement is continued where it stopped.
        stage: Tells the reference's samples among these workloads from those among others of the same timeline: among
            operators it runs in other company than among networks.
        progress: Called with a text, workloads done and workloads of this round.

    Returns:
        The samples of each workload, by name.
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
                    progress(f"round {round_number} of {protocol.max_rounds} at most", done + 1, len(waiting))
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
    """How often a workload runs to settle before a sample, and for a sample."""
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
    """Seconds that one run takes, roughly, after a warm-up."""
    workload.run()
    start, runs = time.perf_counter(), 0
    while runs < 2 or time.perf_counter() - start < warmup_s:
        workload.run()
        runs += 1
    return (time.perf_counter() - start) / runs
