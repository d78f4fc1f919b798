"""Retrainings that begin with the supernet's weights, and trainings from scratch, of the networks that searches find.

    python -m benchmarks.retraining.retraining --data ../shared/data/cifar10 [--size full] [--seeds 3]

For each data set and seed, one search finds a network within half of the largest network's latency. The network is then
trained with the same settings from scratch and from the supernet's weights, for all epochs and for a third of them. The
default size takes some minutes on one core. Rows go to `results/`, under the name of the processor. A run that was
interrupted continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cifar10.settings import SPACE, table_path
from benchmarks.constants import CACHE, CIFAR10_SIZE, CIFAR10_WIDTH, RETRAINING_RESULTS
from benchmarks.jobs import add_job_arguments, print_result, run_jobs
from benchmarks.results_csv import publish

MODULE = "benchmarks.retraining.retraining"
PACKAGES = ("nni-proxyless", "torch", "pytorch-lightning")
SETS = ("cifar10", "digits")
TARGET = "cpu_torch"
BUDGET = 0.5  # fraction of the largest network's latency
# Both sets are searched in the same space, so that the latency table of the benchmark on CIFAR-10 serves for both.
SPACE_SETTINGS: dict[str, Any] = {
    "space": SPACE, "width_mult": CIFAR10_WIDTH, "input_size": CIFAR10_SIZE, "weight_decay": 3e-4, "threads": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How long everything takes with one data set.

    Attributes:
        images: Number of training images, of which the splits take parts.
        search_epochs: Number of epochs of a search; the warm-up takes half of them.
        epochs: Number of epochs of a whole retraining.
    """

    images: int
    search_epochs: int
    epochs: int


SIZES = {
    "toy": {"cifar10": Size(2_000, 12, 12), "digits": Size(1_797, 6, 6)},
    "full": {"cifar10": Size(20_000, 32, 30), "digits": Size(1_797, 30, 30)},
}


def run(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Search with one data set and seed, and retrain the network that was found."""
    from nni_proxyless.deploy.retrain import prepare_retraining, run_retraining
    from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
    from nni_proxyless.search.prepared import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    seed, name = job["seed"], job["set"]
    size = SIZES[job["size"]][name]
    folder = CACHE / "retraining" / f"{name}-{job['size']}-{seed}"
    data = {"data": "arrays", "data_dir": job["data"]} if name == "cifar10" else {"data": "digits"}
    search = {
        **SPACE_SETTINGS, **data, "seed": seed, "epochs": size.search_epochs, "batch_size": 32, "learning_rate": 0.05,
        "warmup_epochs": size.search_epochs // 2, "decay_norm_bias": False, "target": TARGET, "finalists": 16,
        "budget_fraction": BUDGET, "targets": {TARGET: {"table": str(table_path(TARGET))}},
    }  # fmt: skip
    found = run_search(prepare(Recipe.from_dict(search)), folder / "search")
    rows = []
    for start in ("scratch", "supernet"):
        for epochs in (size.epochs, size.epochs // 3):
            settings: dict[str, Any] = {
                "epochs": epochs, "warmup_epochs": 1, "batch_size": 64, "learning_rate": 0.1, "weight_decay": 3e-4,
                "threads": 1, "seed": seed,
            }  # fmt: skip
            if start == "supernet":
                settings["inherit"] = str(folder / "search" / "weights.pt")
            recipe = RetrainRecipe.for_architecture(str(folder / "search"), settings, None)
            card = run_retraining(prepare_retraining(recipe), folder / f"{start}-{epochs}")
            results = card["results"]
            test = results["test"] or results["validation_last"]  # digits have no test part
            rows.append(
                {
                    "size": job["size"], "set": name, "seed": seed, "start": start, "epochs": epochs,
                    "images": card["data"]["training_images"], "judged_on": "test" if results["test"] else "held-out",
                    "top1": round(test["top1"], 4), "supernet_top1": round(found.metrics["default"], 4),
                    "steps": epochs * (card["data"]["training_images"] // 64),
                    "architecture": found.candidate_names,
                }
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, "search with its retrainings")
    parser.add_argument("--size", choices=SIZES, default="toy")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options = parser.parse_args()
    if options.job:
        print_result(options.job, run)
        return
    size = SIZES[options.size]["cifar10"]
    data = Path()
    if "cifar10" in options.sets:
        from benchmarks.search_quality.ground_truth.train import Training, make_data

        training = Training(images=size.images, size=CIFAR10_SIZE)
        data = make_data(options.data, training, CACHE / f"cifar10-{size.images}-{CIFAR10_SIZE}.npz")
    jobs = [
        {"size": options.size, "set": name, "seed": seed, "data": str(data)}
        for seed in range(options.seeds)
        for name in options.sets
    ]
    for rows in run_jobs(MODULE, jobs, options.processes, options.minutes):
        publish("retraining", rows, PACKAGES, RETRAINING_RESULTS, append=True)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
