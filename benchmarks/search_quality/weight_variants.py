"""Whether other ways to train shared weights rank networks better, over all networks of the ground truth.

    python -m benchmarks.search_quality.weight_variants --data ../shared/data/cifar10 [--variants …] [--seeds 0 3]

The script trains supernets of random search as `shared_weights.py` does, each with one change of `weight_training.py`,
and evaluates every network (`network_tree.py`), or 80 of them with `--sample`. It continues where it stopped: a
supernet adds a row for each network to `results/weight_variants.csv.gz`. `--summary` trains nothing; it prints the
table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.constants import SEARCH_QUALITY_RESULTS, SEEDS
from benchmarks.jobs import add_job_arguments, print_result, run_jobs
from benchmarks.results_csv import append_rows, read_rows
from benchmarks.search_quality.ground_truth.load import SPACE, GroundTruth
from benchmarks.search_quality.shared_weights import supernet_settings
from benchmarks.search_quality.supernet_accuracies import read_supernets
from benchmarks.search_quality.supernet_tables import Supernets
from benchmarks.search_quality.variant_tables import variant_table
from nni_proxyless.network.space_spec import SpaceSpec

MODULE = "benchmarks.search_quality.weight_variants"
STRATEGY = "benchmarks.search_quality.weight_training:TrainedOtherwise"
VARIANTS_CSV = SEARCH_QUALITY_RESULTS / "weight_variants.csv.gz"
COLUMNS = ("variant", "seed", "weight_steps", "cpu_seconds", "architecture", "accuracy")
BASE = "as it is"
# Changes of the strategy, and those of the recipe that keep the time equal.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    BASE: ({}, {}),
    "rate by size, exponent 4": ({"rate_exponent": 4.0}, {}),
    "rate by size, exponent 2": ({"rate_exponent": 2.0}, {}),
    # With exponent 1 all networks have the same linear schedule, so the difference to this one is the size's.
    "linear rate": ({"rate_exponent": 1.0}, {}),
    "linear rate, mean of the last 5 epochs": ({"rate_exponent": 1.0, "averaged_epochs": 5}, {}),
    "rate by size, exponent 4, mean of the last 5 epochs": ({"rate_exponent": 4.0, "averaged_epochs": 5}, {}),
    "momentum of each first candidate": ({"momenta": "layer"}, {}),
    "momentum of each quarter by size": ({"momenta": "size"}, {}),
    "rate by size, momentum of each first candidate": ({"momenta": "layer", "rate_exponent": 4.0}, {}),
    "mean of the last 5 epochs": ({"averaged_epochs": 5}, {}),
    "sandwich with distillation, 7 epochs": ({"sandwich": True, "teach": 1.0}, {"epochs": 7}),
    "shared weights of batch-norms": ({"share_norms": True}, {}),
    "shared momenta": ({"share_momenta": True}, {}),
    "shared weights of batch-norms and momenta": ({"share_norms": True, "share_momenta": True}, {}),
    "residual branches start at half": ({"residual_scale": 0.5}, {}),
    "rate 0.2": ({}, {"learning_rate": 0.2}),
}


def in_sample(names: Sequence[str]) -> bool:
    """Whether networks that begin with these candidates are among 80 of the 400, which have all candidates as often."""
    numbers = [layer.names.index(name) for layer, name in zip(_spec().layers, names, strict=False)]
    return len(numbers) < 4 or sum(numbers[:3]) % 5 == numbers[3]


@cache
def _spec() -> SpaceSpec:
    return SpaceSpec.from_yaml(str(SPACE))


def run_one(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train one supernet in this process, and evaluate all networks with its weights."""
    import torch

    from benchmarks.search_quality.network_tree import all_accuracies
    from benchmarks.search_quality.weight_training import TrainedOtherwise
    from nni_proxyless.search.prepared import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search
    from nni_proxyless.search.shared_weights import finalists_loader, statistics_loader

    changes, settings = VARIANTS[job["variant"]]
    own = {**settings, "strategy": STRATEGY, "strategy_args": {"best_of": 1, **changes}}  # one needs no comparison
    recipe = Recipe.from_dict(supernet_settings(job, own))
    prepared = prepare(recipe)
    seconds = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run_search(prepared, Path(folder))
        seconds = time.process_time() - seconds
        steps = json.loads((Path(folder) / "cost.json").read_text(encoding="utf-8"))["weight_steps"]
    batches = itertools.islice(statistics_loader(recipe, prepared.splits), recipe.bn_batches)
    images, labels = (torch.cat(of) for of in zip(*finalists_loader(recipe, prepared.splits), strict=True))
    wanted = in_sample if job["sample"] else lambda names: True
    found = all_accuracies(TrainedOtherwise.trained, [batch for batch, _ in batches], images, labels, wanted)
    return [
        {
            "variant": job["variant"], "seed": job["seed"], "weight_steps": steps, "cpu_seconds": round(seconds, 1),
            "architecture": name, "accuracy": round(accuracy, 6),
        }
        for name, accuracy in found.items()
    ]  # fmt: skip


def read_variants(path: Path = VARIANTS_CSV) -> dict[str, dict[int, list[dict[str, str]]]]:
    """Variant to seed to rows, one for each network."""
    found: dict[str, dict[int, list[dict[str, str]]]] = {}
    for row in read_rows(path):
        found.setdefault(row["variant"], defaultdict(list))[int(row["seed"])].append(row)
    return found


def with_recorded(
    found: dict[str, dict[int, list[dict[str, str]]]], recorded: Supernets
) -> dict[str, dict[int, list[dict[str, str]]]]:
    """The variants, with supernets of `shared_weights.py` where the base lacks a seed.

    They were trained in the same way on another machine, so they have no CPU seconds. Their networks are those that
    `--sample` evaluates.
    """
    base = {
        seed: [
            {key: row[key] for key in ("architecture", "accuracy")}
            for row in lines
            if in_sample(row["architecture"].split())
        ]
        for (variant, seed), lines in recorded.items()
        if variant == "random"
    }
    return {**found, BASE: {**base, **found.get(BASE, {})}}


def train(options: argparse.Namespace) -> None:
    """Train the supernets that are missing in the CSV file."""
    from benchmarks.search_quality.ground_truth.train import Training, data_file, make_data

    data = str(make_data(options.data, Training(), data_file()))
    known = read_variants()
    jobs = [
        {"variant": variant, "seed": seed, "data": data, "sample": options.sample}
        for seed, variant in itertools.product(range(*options.seeds), options.variants)
        if seed not in known.get(variant, {})
    ]
    for rows in run_jobs(MODULE, jobs, options.processes, options.minutes):
        append_rows(rows, VARIANTS_CSV, COLUMNS)
        sys.stdout.write(f"{rows[0]['variant']}, seed {rows[0]['seed']}: {rows[0]['cpu_seconds']} s\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, "supernet")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs=2, type=int, default=[0, SEEDS], help="first seed, and the one after the last")
    parser.add_argument("--sample", action="store_true", help="evaluate 80 of the 400 networks")
    parser.add_argument("--summary", action="store_true", help="only print the table of the results so far")
    options = parser.parse_args()
    if options.job:
        print_result(options.job, run_one)
        return
    if not options.summary:
        train(options)
    sys.stdout.write(variant_table(with_recorded(read_variants(), read_supernets()), GroundTruth(), BASE))


if __name__ == "__main__":
    main()
