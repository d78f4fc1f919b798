"""How well a table of a new device follows from ten or twenty timed networks.

    python -m benchmarks.latency.few_shot [--data ../shared/data/latency/fbnet] [--draws 20]

The data are public latencies of 5,000 networks of the FBNet space on 13 devices (HELP, Lee et al. 2021; HW-NAS-Bench,
Li et al. 2021), and counts of what each candidate computes. A task has known devices, the basis, and new devices. Ten
or twenty networks of a new device are given, and all others test the fit. In tasks `a` and `b` the new devices are of
another kind than the basis. In task `c` they are not. Task `d` has no basis, and all devices are new.

| method | |
|---|---|
| plain mixture | non-negative least squares on the basis tables, random networks; not in task `d` |
| basis | `latency fit --basis`, random networks; not in task `d` |
| basis and counts | `latency fit --basis --counts`, the same random networks |
| suggested | the same, with the networks that `latency suggest` chooses from 1,000 random ones |

A draw is a random set of networks or, for `suggested`, a random set of 1,000 to choose from.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from benchmarks.constants import FBNET_DATA, LATENCY_RESULTS
from benchmarks.latency.latency_fit import BASIS, NEW, score_columns
from benchmarks.results_csv import publish
from nni_proxyless.latency.architectures_file import Measurements
from nni_proxyless.latency.arrays import spearman
from nni_proxyless.latency.counts import read_counts
from nni_proxyless.latency.doubtful import uncertainty_of
from nni_proxyless.latency.fitting.fit import fit_table
from nni_proxyless.latency.fitting.suggest import suggest
from nni_proxyless.latency.table import LatencyTable

GPUS = ("1080ti_1", "1080ti_32", "1080ti_64", "titanx_1", "titanx_32", "titanx_64")
PHONES = ("samsung_a50", "pixel3", "essential_ph_1", "samsung_s7")
TASKS = {
    "a": ((*PHONES, "silver_4114", "gold_6240"), GPUS),
    "b": (GPUS, (*PHONES, "silver_4114", "silver_4210r", "gold_6240")),
    "c": (BASIS, NEW),
    "d": ((), tuple(sorted({*BASIS, *NEW}))),
}
SIZES = (10, 20)
POOL = 1000
Z = {"coverage_68": 0.994458, "coverage_95": 1.959964}  # two-sided quantiles of the normal distribution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FBNET_DATA)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    architectures = pd.read_csv(options.data / "architectures.csv", dtype=str)
    latencies = pd.read_csv(options.data / "latency_ms.csv")
    counts = read_counts(options.data / "counts.csv")
    layers = {label: architectures[label].to_numpy(dtype=str) for label in architectures}
    measured = {name: Measurements(layers, latencies[name].to_numpy(dtype=np.float64)) for name in latencies}
    tables = {name: fit_table(known, device=name).table for name, known in measured.items()}
    predicted = {name: table.own_costs().of_many(layers) for name, table in tables.items()}
    total = len(latencies)

    def of_table(table: LatencyTable, test: Measurements) -> tuple[float, ...]:
        found = table.own_costs().of_many(test.layers)
        misses = np.abs(test.latency_ms - found) / uncertainty_of(table).std(test.layers, found)
        return *score(found, test), *(float(np.mean(misses < z)) for z in Z.values())

    rows: list[dict[str, Any]] = []
    for task, (names, new) in TASKS.items():
        basis = [tables[name] for name in names]
        stacked = np.array([predicted[name] for name in names]).T
        suggested = [_suggested(tables, names, layers, counts, draw) for draw in range(options.draws)]
        for device in new:
            for size in SIZES:
                scores: dict[str, list[tuple[float, ...]]] = {}
                for draw in range(options.draws):
                    order = np.random.default_rng(draw).permutation(total)
                    known, test = measured[device].rows(order[:size]), measured[device].rows(order[size:])
                    chosen = suggested[draw][:size]
                    others = np.setdiff1d(np.arange(total), chosen)
                    fits = {
                        "basis and counts": of_table(fit_table(known, basis, counts=counts).table, test),
                        "suggested": of_table(
                            fit_table(measured[device].rows(chosen), basis, counts=counts).table,
                            measured[device].rows(others),
                        ),
                    }
                    if names:
                        weights, _ = nnls(stacked[order[:size]], known.latency_ms)
                        scores.setdefault("plain mixture", []).append(score(stacked[order[size:]] @ weights, test))
                        scores.setdefault("basis", []).append(of_table(fit_table(known, basis).table, test))
                    for method, found in fits.items():
                        scores.setdefault(method, []).append(found)
                rows += [_row(task, device, method, size, found) for method, found in scores.items()]
    publish("few_shot", rows, ("nni-proxyless", "numpy", "scipy"), LATENCY_RESULTS)


def score(predicted: Any, test: Measurements) -> tuple[float, float]:
    """Rank correlation and mean relative error of predictions."""
    return spearman(predicted, test.latency_ms), float(np.mean(np.abs(predicted / test.latency_ms - 1)))


def _suggested(
    tables: dict[str, LatencyTable], names: tuple[str, ...], layers: dict[str, Any], counts: Any, draw: int
) -> Any:
    """Row numbers of the networks that are suggested, in the order in which they are chosen."""
    pool = np.random.default_rng(1000 + draw).permutation(len(next(iter(layers.values()))))[:POOL]
    costs = [tables[name].own_costs() for name in names]
    chosen = suggest(
        counts.candidates,
        max(SIZES),
        basis=costs,
        counts=counts,
        pool={label: column[pool] for label, column in layers.items()},
    )
    row_of = {tuple(column[i] for column in layers.values()): i for i in pool}
    return np.array([row_of[tuple(network[label] for label in layers)] for network in chosen])


def _row(task: str, device: str, method: str, networks: int, scores: list[tuple[float, ...]]) -> dict[str, Any]:
    ranks, errors, *coverages = np.array(scores).T
    covered = [round(float(coverage.mean()), 4) for coverage in coverages] or [""] * len(Z)
    return {
        "task": task,
        "device": device,
        "method": method,
        "networks": networks,
        **score_columns(ranks, errors),
        **dict(zip(Z, covered, strict=True)),
    }


if __name__ == "__main__":
    main()
