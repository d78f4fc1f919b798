"""Whether networks that were decoded within random budgets are within them, by the table and when they are measured.

    python -m benchmarks.latency.budgets_by_stopwatch [--combinations 70] [--backend onnxruntime] [--minutes 9]

For each shipped space, the script measures a latency table of this machine, and draws combinations of budgets: one of
the latency, and one to three of the other quantities. Path probabilities are drawn as late in a search. The most likely
network within the budgets is decoded, and measured as `nni-proxyless latency validate` measures networks. A network
that several combinations share is measured once.

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
from collections.abc import Mapping
from dataclasses import dataclass
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
    "space", "backend", "combination", "budgets", "others_within", "architecture", "limit_ms", "predicted_ms",
    "measured_ms", "clock_ms", "table_error", "table_date", "machine", "load", "date", "processor", "cores",
    "nni-proxyless", "torch", "onnxruntime",
)  # fmt: skip
Row = dict[str, str]


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


def decoded(spec: SpaceSpec, table: LatencyTable, number: int) -> Decoded:
    """Draw a combination of budgets and path probabilities, and decode them. A number always draws the same ones."""
    generator = random.Random(f"{spec.name} {number}")
    budgets = {TARGET: f"{generator.uniform(TIGHTEST, LOOSEST):.2f}%"}
    for name in generator.sample(list(QUANTITIES), generator.randint(1, 3)):
        budgets[name] = f"{generator.uniform(OTHERS_TIGHTEST, 100):.2f}%"
    constraints = constraints_of(parse_budgets(budgets), {TARGET: table.costs(spec)}, spec)
    rng = np.random.default_rng(generator.getrandbits(32))
    probs = {layer.label: torch.tensor(rng.dirichlet(np.full(len(layer.names), 0.5))) for layer in spec.layers}
    try:
        (choices,) = likeliest_satisfying(probs, constraints)
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


def measure(
    spec: SpaceSpec, backend: Backend, table: LatencyTable, wanted: list[Decoded], known: Mapping[str, Row]
) -> list[dict[str, Any]]:
    """Measure the networks of some combinations, and return a row for each combination.

    Args:
        spec: Space of the networks.
        backend: Backend that measures.
        table: Latency table.
        wanted: Combinations that some network is within.
        known: Earlier rows of the same space, backend and table, by network.
    """
    load = os.getloadavg()[0]
    new = {}
    for one in wanted:
        assert one.architecture is not None
        if one.architecture.candidate_names not in known:
            new[one.architecture.candidate_names] = one.architecture
    taken: dict[str, dict[str, Any]] = {name: dict(row) for name, row in known.items()}
    if new:
        found = validate_architectures(table, list(new.values()), backend=backend, processes=PROCESSES)
        for name, predicted, measured, clock in zip(
            new, found.predicted_ms, found.measured_ms, found.raw_ms, strict=True
        ):
            taken[name] = {
                "predicted_ms": repr(float(predicted)),
                "measured_ms": repr(float(measured)),
                "clock_ms": repr(float(clock)),
                "machine": "" if found.machine is None else f"{found.machine:.4f}",
                "load": f"{load:.1f}",
                "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            }
    where = {"processor": processor(), "cores": this_device().cores}
    where |= {name: version(name) for name in ("nni-proxyless", "torch", "onnxruntime")}
    rows = []
    for one in wanted:
        assert one.architecture is not None
        own = taken[one.architecture.candidate_names]
        rows.append(
            {
                "space": spec.name,
                "backend": backend.name,
                "combination": one.number,
                "budgets": json.dumps(one.budgets),
                "others_within": one.others_within,
                "architecture": one.architecture.candidate_names,
                "limit_ms": repr(one.limit_ms),
                **{key: own[key] for key in ("predicted_ms", "measured_ms", "clock_ms", "machine", "load", "date")},
                "table_error": repr(table.calibration.mean_relative_error),
                "table_date": table.date,
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
            known = {row["architecture"]: row for row in own if row["table_date"] == table.date}
            began = time.perf_counter()
            rows = measure(spec, backend, table, wanted[start : start + GROUP], known)
            append_rows(rows, path, COLUMNS)
            own += [{key: str(value) for key, value in row.items()} for row in rows]
            sys.stdout.write(f"{name}: {len(own)} of {options.combinations}, {time.perf_counter() - began:.0f} s\n")
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
