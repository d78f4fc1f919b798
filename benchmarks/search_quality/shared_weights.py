"""Whether the weights of a supernet rank networks as training each alone does, over all networks of the ground truth.

    python -m benchmarks.search_quality.shared_weights --data ../shared/data/cifar10 [--variants …] [--seeds 5]

The script trains supernets with the data and steps of `search_quality.py`. Each supernet evaluates every network of the
space as the final selection of a search would, and the ground truth has the accuracy of each network trained alone. The
script continues where it stopped: a supernet adds 400 rows to `results/shared_weights.csv.gz`. `--summary` trains
nothing; it prints the tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.constants import GROUND_TRUTH_NETWORKS, OWN_WEIGHTS, SEEDS
from benchmarks.jobs import add_job_arguments, print_result, run_jobs
from benchmarks.results_csv import append_rows, read_rows
from benchmarks.search_quality.ground_truth.load import SPACE, TABLES, GroundTruth
from benchmarks.search_quality.outcomes import random_rows
from benchmarks.search_quality.settings import COMMON, SUPERNETS_CSV
from benchmarks.search_quality.supernet_accuracies import read_supernets
from benchmarks.search_quality.supernet_tables import limits_table, supernet_table

MODULE = "benchmarks.search_quality.shared_weights"
COLUMNS = ("variant", "seed", "weight_steps", "training_seconds", "seconds_each", "architecture", "accuracy")
# The architecture parameters of this search do not move, so its weights are those of its warm-up.
STILL: dict[str, Any] = {"finalists": GROUND_TRUTH_NETWORKS, "arch_learning_rate": 1e-9, "sharpen_epochs": 0}
RANDOM: dict[str, Any] = {"strategy": "random", "strategy_args": {"best_of": GROUND_TRUTH_NETWORKS}}
FAIR: dict[str, Any] = {**STILL, "warmup_sampling": "fair", "warmup_epochs": 19}
RATE_HALVED: dict[str, Any] = {"learning_rate": 0.05}
VARIANTS: dict[str, dict[str, Any]] = {
    "random": RANDOM,
    # Batches that re-estimate the batch-norm statistics of each network; the recipe's default is 10. With 0 batches the
    # networks keep the supernet's running statistics. On one machine the supernets of a seed are equal.
    "random, statistics of 1 batch": {**RANDOM, "bn_batches": 1},
    "random, statistics of 10 batches": RANDOM,
    "random, statistics of 40 batches": {**RANDOM, "bn_batches": 40},
    "random, statistics of the supernet": {**RANDOM, "bn_batches": 0},
    "random, 10 epochs": {**RANDOM, "epochs": 10},
    "random, 5 epochs": {**RANDOM, "epochs": 5},
    "fair, entangled weights": FAIR,
    # Candidates with weights of their own.
    **{
        name: {**settings, **OWN_WEIGHTS}
        for name, settings in {
            "random, own weights": RANDOM,
            "fair": FAIR,
            "random, rate 0.05": {**RANDOM, **RATE_HALVED},
            "fair, rate 0.05": {**FAIR, **RATE_HALVED},
            "fair, 8 epochs, rate 0.05": {**FAIR, **RATE_HALVED, "warmup_epochs": 7, "epochs": 8},
            "fair, 40 epochs, rate 0.05": {**FAIR, **RATE_HALVED, "warmup_epochs": 39, "epochs": 40},
            "fair, batches of 32, rate 0.05": {**FAIR, **RATE_HALVED, "batch_size": 32},
        }.items()
    },
}


def supernet_settings(job: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a supernet, whose budget all networks are within.

    Args:
        job: `data`, the file of images, and `seed`.
        changes: What differs from the settings that all strategies share.
    """
    target = next(iter(TABLES))
    return {
        **COMMON,
        **changes,
        "space": str(SPACE),
        "data_dir": job["data"],
        "seed": job["seed"],
        "budget_ms": float(GroundTruth().latency_ms[target].max()) * 1.001,
        "target": target,
        "targets": {target: {"table": str(TABLES[target])}},
    }


def run_one(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Train one supernet in this process, and evaluate all networks with its weights."""
    from nni_proxyless.search.prepared import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    settings = supernet_settings(job, VARIANTS[job["variant"]])
    with tempfile.TemporaryDirectory() as folder:
        run_search(prepare(Recipe.from_dict(settings)), Path(folder))
        seconds = [float(row["seconds"]) for row in read_rows(Path(folder) / "history.csv")]
        ranked = read_rows(Path(folder) / "finalists.csv")
        steps = json.loads((Path(folder) / "cost.json").read_text(encoding="utf-8"))["weight_steps"]
    epochs = len(seconds)
    training = seconds[-2] * epochs / (epochs - 1)
    each = (seconds[-1] - training) / len(ranked)
    return [
        {
            "variant": job["variant"], "seed": job["seed"], "weight_steps": steps,
            "training_seconds": round(training, 1), "seconds_each": round(each, 3), "architecture": row["architecture"],
            "accuracy": row["accuracy"],
        }
        for row in ranked
    ]  # fmt: skip


def train(options: argparse.Namespace) -> None:
    """Train the supernets that are missing in the CSV file."""
    from benchmarks.search_quality.ground_truth.train import Training, data_file, make_data

    data = str(make_data(options.data, Training(), data_file()))
    known = read_supernets()
    jobs = [
        {"variant": variant, "seed": seed, "data": data}
        for seed, variant in itertools.product(range(options.seeds), options.variants)
        if (variant, seed) not in known
    ]
    for rows in run_jobs(MODULE, jobs, options.processes, options.minutes):
        append_rows(rows, SUPERNETS_CSV, COLUMNS)
        sys.stdout.write(f"{rows[0]['variant']}, seed {rows[0]['seed']}: {rows[0]['training_seconds']} s\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, "supernet")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["random"])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--summary", action="store_true", help="only print the tables of the results so far")
    options = parser.parse_args()
    if options.job:
        print_result(options.job, run_one)
        return
    if not options.summary:
        train(options)
    truth, found = GroundTruth(), read_supernets()
    seeds = sum(variant == "random" for variant, _ in found)
    sys.stdout.write(f"{supernet_table(found, truth)}\n{limits_table(found, truth, random_rows(seeds, truth))}")


if __name__ == "__main__":
    main()
