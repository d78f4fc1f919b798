"""How well tables fitted to whole-network latencies predict other networks of the same device.

    python -m benchmarks.latency.latency_fit [--data ../shared/data/latency/fbnet] [--draws 20]

The data are public latencies of 5,000 networks of the FBNet space on 13 devices (HELP, Lee et al. 2021; HW-NAS-Bench,
Li et al. 2021). Rows `many` fit a table to 300 networks and test it on the other 4,700. Rows `few` fit a table to ten
networks of a new device, with the tables of nine other devices as a basis. The baseline of `few` is a plain
non-negative mixture of the same tables on the same draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from benchmarks.constants import FBNET_DATA, LATENCY_RESULTS
from benchmarks.results_csv import publish
from nni_proxyless.latency.architectures_file import Measurements
from nni_proxyless.latency.arrays import spearman
from nni_proxyless.latency.fitting.fit import fit_table

BASIS = ("1080ti_1", "1080ti_32", "1080ti_64", "silver_4114", "silver_4210r", "samsung_a50", "pixel3")
BASIS += ("essential_ph_1", "samsung_s7")
NEW = ("titanx_1", "titanx_32", "titanx_64", "gold_6240")


def score_columns(ranks: Any, errors: Any) -> dict[str, Any]:
    """Summarise the Spearman correlations and mean relative errors of several draws, each of shape (draws,)."""
    return {
        "draws": len(ranks),
        "spearman": round(float(ranks.mean()), 4),
        "spearman_std": round(float(ranks.std()), 4),
        "spearman_worst": round(float(ranks.min()), 4),
        "mean_error": round(float(errors.mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FBNET_DATA)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    architectures = pd.read_csv(options.data / "architectures.csv", dtype=str)
    latencies = pd.read_csv(options.data / "latency_ms.csv")
    layers = {label: architectures[label].to_numpy(dtype=str) for label in architectures}

    def part(name: str, index: Any) -> Measurements:
        return Measurements(layers, latencies[name].to_numpy(dtype=np.float64)).rows(index)

    def row(kind: str, device: str, method: str, networks: int, scores: list[tuple[float, float]]) -> dict[str, Any]:
        ranks, errors = np.array(scores).T
        return {
            "kind": kind,
            "device": device,
            "method": method,
            "networks": networks,
            **score_columns(ranks, errors),
        }

    def score(predicted: Any, test: Measurements) -> tuple[float, float]:
        return spearman(predicted, test.latency_ms), float(np.mean(np.abs(predicted / test.latency_ms - 1)))

    rows: list[dict[str, Any]] = []
    total: dict[str, list[tuple[float, float]]] = {"regression": [], "ours": [], "plain mixture": []}
    for device in latencies:
        scores = []
        for draw in range(3):
            order = np.random.default_rng(draw).permutation(len(latencies))
            test = part(device, order[300:])
            scores.append(score(fit_table(part(device, order[:300])).table.own_costs().of_many(test.layers), test))
        rows.append(row("many", device, "regression", 300, scores))
        total["regression"] += scores
    rows.append(row("many", "all 13", "regression", 300, total["regression"]))
    basis = [fit_table(part(name, np.arange(len(latencies))), device=name).table for name in BASIS]
    everything = np.stack([table.own_costs().of_many(layers) for table in basis], axis=1)
    for device in NEW:
        found: dict[str, list[tuple[float, float]]] = {"ours": [], "plain mixture": []}
        for draw in range(options.draws):
            order = np.random.default_rng(draw).permutation(len(latencies))
            known, test = part(device, order[:10]), part(device, order[10:])
            table = fit_table(known, basis, device=device).table
            found["ours"].append(score(table.own_costs().of_many(test.layers), test))
            weights, _ = nnls(everything[order[:10]], known.latency_ms)
            found["plain mixture"].append(score(everything[order[10:]] @ weights, test))
        for method, scores in found.items():
            rows.append(row("few", device, method, 10, scores))
            total[method] += scores
    rows += [row("few", "all 4", method, 10, total[method]) for method in ("ours", "plain mixture")]
    publish("latency_fit", rows, ("nni-proxyless", "numpy", "scipy"), LATENCY_RESULTS)


if __name__ == "__main__":
    main()
