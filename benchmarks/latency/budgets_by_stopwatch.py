"""Whether networks that were decoded within random budgets are within them, by the table and when they are measured.

    python -m benchmarks.latency.budgets_by_stopwatch [--combinations 70] [--backend onnxruntime] [--minutes 9]

For each shipped space, the script measures a latency table of this machine, and draws combinations of budgets: one of
the latency, and one to three of the other quantities. Path probabilities are drawn as late in a search. The most likely
network within the budgets is decoded, and measured as `nni-proxyless latency validate` measures networks. If it exceeds
its latency budget, another one is decoded and measured, as at the end of a search (`search.measured_budget`). The
chosen network is measured once more, because the measurement that chose it is not independent of the choice.

The script continues where it stopped: each measured combination is a row of a CSV file, with the machine and the
versions, and the tables are kept in `benchmarks/cache`. `--minutes` starts no further group of networks after this
long. `--anew` measures everything again. `--output FOLDER` writes the CSV file and the tables elsewhere, for trials.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.constants import CACHE, LATENCY_RESULTS
from benchmarks.results_csv import append_rows, file_here, processor, read_rows
from nni_proxyless.decoding.budgets import QUANTITIES, constraints_of, parse_budgets
from nni_proxyless.decoding.constraint import Constraint
from nni_proxyless.decoding.constraints import likeliest_satisfying
from nni_proxyless.errors import InputError
from nni_proxyless.latency import LatencyTable, make_backend, measure_table_isolated, this_device
from nni_proxyless.latency.backends.base import Backend
from nni_proxyless.latency.validate import comparable_level, validate_architectures
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.measured_budget import MOST_COMPARISONS, lower_limit_ms

NAME = "budgets_by_stopwatch"
SPACES = ("mobilenetv2_digits", "mobilenetv2_cifar", "mobilenetv2_imagenet")
COMBINATIONS = 70  # for each space
BACKENDS = {"onnxruntime": "onnxruntime", "torch": "torch"}  # and their packages
TARGET = "device"  # name of the latency among the budgets
TIGHTEST, LOOSEST = 35.0, 75.0  # budgets of latencies, in percent of the largest network's
OTHERS_TIGHTEST = 50.0  # of other quantities
GROUP = 24  # networks that are measured together
PROCESSES = 3
COLUMNS = (
    "space", "backend", "combination", "budgets", "others_within", "limit_ms", "first_architecture",
    "first_predicted_ms", "first_measured_ms", "architecture", "predicted_ms", "choosing_ms", "measured_ms", "measured",
    "table_error", "table_date", "load", "date", "processor", "cores", "nni-proxyless", "torch", "onnxruntime",
)  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """The network of a combination of budgets.

    Attributes:
        number: Number of the combination.
        budgets: Budgets as a recipe states them.
        constraints: Budgets with their limits; that of the latency is called `TARGET`.
        architecture: Most likely network within them; `None` if no network is.
    """

    number: int
    budgets: Mapping[str, str]
    constraints: tuple[Constraint, ...]
    architecture: Architecture | None

    @property
    def limit_ms(self) -> float:
        return next(constraint.limit for constraint in self.constraints if constraint.name == TARGET)

    @property
    def others_within(self) -> bool:
        """Whether the network is within all budgets but that of the latency."""
        assert self.architecture is not None
        choices = self.architecture.choices
        return all(c.of(choices) <= c.limit * (1 + 1e-9) for c in self.constraints if c.name != TARGET)


def decoded(spec: SpaceSpec, table: LatencyTable, number: int, limit_ms: float | None = None) -> Decoded:
    """Draw a combination of budgets and path probabilities, and decode them. A number always draws the same ones.

    Args:
        spec: Space of the networks.
        table: Latency table.
        number: Number of the combination.
        limit_ms: Lower limit of the network's latency, in milliseconds, that leaves the budgets as they are.
    """
    generator = random.Random(f"{spec.name} {number}")
    budgets = {TARGET: f"{generator.uniform(TIGHTEST, LOOSEST):.2f}%"}
    for name in generator.sample(list(QUANTITIES), generator.randint(1, 3)):
        budgets[name] = f"{generator.uniform(OTHERS_TIGHTEST, 100):.2f}%"
    constraints = constraints_of(parse_budgets(budgets), {TARGET: table.costs(spec)}, spec)
    rng = np.random.default_rng(generator.getrandbits(32))
    probs = {layer.label: torch.tensor(rng.dirichlet(np.full(len(layer.names), 0.5))) for layer in spec.layers}
    limits = [replace(c, limit=limit_ms) if c.name == TARGET and limit_ms is not None else c for c in constraints]
    try:
        (choices,) = likeliest_satisfying(probs, limits)
    except InputError:
        return Decoded(number, budgets, tuple(constraints), None)
    return Decoded(number, budgets, tuple(constraints), Architecture.of_space(spec, choices))


def kept_table(spec: SpaceSpec, backend: Backend, path: Path) -> LatencyTable:
    """The table of an earlier run of this script if it is comparable with today's measurements, otherwise a new one."""
    if path.is_file():
        table = LatencyTable.load(path)
        if comparable_level(table, backend, spec) is not None:
            return table
    table = measure_table_isolated(spec, backend)
    table.save(path)
    return table


@dataclass
class Search:
    """The networks of a combination that were measured, in their order, with their latencies in milliseconds."""

    tried: list[Decoded]
    predicted_ms: list[float]
    measured_ms: list[float]

    @property
    def best(self) -> int:
        """Index of the network that `keep_measured_budget` would choose: the last of those that exceed least."""
        limit = self.tried[0].limit_ms
        return min(reversed(range(len(self.tried))), key=lambda one: max(self.measured_ms[one], limit))


def timed(table: LatencyTable, backend: Backend, networks: Sequence[Decoded]) -> list[float]:
    """Measure the networks together, each different one once, and return their latencies in milliseconds."""
    different = {one.architecture.candidate_names: one.architecture for one in networks if one.architecture is not None}
    found = validate_architectures(table, list(different.values()), backend=backend, processes=PROCESSES)
    by_name = dict(zip(different, found.measured_ms.tolist(), strict=True))
    return [by_name[one.architecture.candidate_names] for one in networks if one.architecture is not None]


def measure(spec: SpaceSpec, backend: Backend, table: LatencyTable, wanted: Sequence[Decoded]) -> list[dict[str, Any]]:
    """Measure the networks of some combinations, and return a row for each combination.

    Args:
        spec: Space of the networks.
        backend: Backend that measures.
        table: Latency table.
        wanted: Combinations that some network is within.
    """
    load, costs = os.getloadavg()[0], table.costs(spec)
    searches = [Search([], [], []) for _ in wanted]
    pending = list(zip(searches, wanted, strict=True))
    for _ in range(1 + MOST_COMPARISONS):
        again = []
        values = timed(table, backend, [one for _, one in pending]) if pending else []
        for (search, one), value in zip(pending, values, strict=True):
            assert one.architecture is not None
            search.tried.append(one)
            search.predicted_ms.append(costs.of(one.architecture.choices))
            search.measured_ms.append(value)
            lower = lower_limit_ms(one.limit_ms, search.predicted_ms[-1], value)
            other = None if lower is None else decoded(spec, table, one.number, lower)
            if other is not None and other.architecture is not None:
                again.append((search, other))
        pending = again
    independent = timed(table, backend, [search.tried[search.best] for search in searches])
    where: dict[str, Any] = {"processor": processor(), "cores": this_device().cores}
    where |= {name: version(name) for name in ("nni-proxyless", "torch", "onnxruntime")}
    rows = []
    for search, final_ms in zip(searches, independent, strict=True):
        first, best = search.tried[0], search.tried[search.best]
        assert first.architecture is not None
        assert best.architecture is not None
        rows.append(
            {
                "space": spec.name,
                "backend": backend.name,
                "combination": first.number,
                "budgets": json.dumps(first.budgets),
                "others_within": best.others_within,
                "limit_ms": repr(first.limit_ms),
                "first_architecture": first.architecture.candidate_names,
                "first_predicted_ms": repr(search.predicted_ms[0]),
                "first_measured_ms": repr(search.measured_ms[0]),
                "architecture": best.architecture.candidate_names,
                "predicted_ms": repr(search.predicted_ms[search.best]),
                "choosing_ms": repr(search.measured_ms[search.best]),
                "measured_ms": repr(final_ms),
                "measured": len(search.tried),
                "table_error": repr(table.calibration.mean_relative_error),
                "table_date": table.date,
                "load": f"{load:.1f}",
                "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                **where,
            }
        )
    return rows


def run(options: argparse.Namespace, path: Path, tables: Path) -> bool:
    """Measure what is missing in a CSV file, and return whether nothing is missing any more."""
    end = time.monotonic() + 60 * options.minutes
    for name in options.spaces:
        spec = SpaceSpec.from_yaml(name)
        backend = make_backend(options.backend, threads=1)
        table = kept_table(spec, backend, tables / f"{name}-{backend.name}.yml")
        own = [row for row in read_rows(path) if (row["space"], row["backend"]) == (spec.name, backend.name)]
        done = {int(row["combination"]) for row in own}
        wanted, number = [], 0
        while len(wanted) + len(done) < options.combinations:
            if number not in done and (one := decoded(spec, table, number)).architecture is not None:
                wanted.append(one)
            number += 1
        for start in range(0, len(wanted), GROUP):
            if time.monotonic() > end:
                return False
            began = time.perf_counter()
            append_rows(measure(spec, backend, table, wanted[start : start + GROUP]), path, COLUMNS)
            count = len(done) + min(start + GROUP, len(wanted))
            sys.stdout.write(f"{name}: {count} of {options.combinations}, {time.perf_counter() - began:.0f} s\n")
            sys.stdout.flush()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--combinations", type=int, default=COMBINATIONS, help="for each space")
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=SPACES)
    parser.add_argument("--backend", default="onnxruntime", choices=sorted(BACKENDS))
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start no group of networks after this long"
    )
    parser.add_argument("--anew", action="store_true", help="measure tables and networks again")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="write the CSV file and the tables to this folder"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    path = file_here(NAME, options.output or LATENCY_RESULTS)
    tables = (options.output or CACHE) / NAME
    if options.anew:
        path.unlink(missing_ok=True)
        for table in tables.glob("*.yml"):
            table.unlink()
    complete = run(options, path, tables)
    sys.stdout.write(f"{path}{'' if complete else ': incomplete, start the script again'}\n")


if __name__ == "__main__":
    main()
