"""Do the weights of a supernet rank networks as training them alone does? All 400 networks, with shared weights.

    .venv/bin/python benchmarks/shared_weights.py --data ../shared/data/cifar10 [--variants …] [--seeds 5]

Trains supernets with the data and steps of `search_quality.py`, lets each judge every network of the space as it would
judge finalists (`finalists.csv`), and compares with the accuracies in `ground_truth/`. It goes on where it stopped: a
supernet adds 400 lines to `results/shared_weights.csv.gz`. `--summary` prints the table of what there is.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from _jobs import add_arguments, answer, append, results
from _jobs import read as read_lines

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER / "ground_truth")]
RESULTS = FOLDER / "results" / "shared_weights.csv.gz"
COLUMNS = ("variant", "seed", "weight_steps", "training_seconds", "seconds_each", "architecture", "accuracy")
NETWORKS = 400
# A search whose architecture stands still, so that its weights are those of its warm-up.
STILL: dict[str, Any] = {"finalists": NETWORKS, "arch_learning_rate": 1e-9, "sharpen_epochs": 0}
RANDOM: dict[str, Any] = {"strategy": "random", "strategy_args": {"best_of": NETWORKS}}
FAIR: dict[str, Any] = {**STILL, "warmup_sampling": "fair", "warmup_epochs": 19}
SLOWER: dict[str, Any] = {"learning_rate": 0.05}
OWN: dict[str, Any] = {"entangle_weights": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "random": RANDOM,
    # Batch-norm statistics, re-estimated for each network, of 10 batches otherwise. On one machine, the supernets of a
    # seed are the same.
    "random, statistics of 1 batch": {**RANDOM, "bn_batches": 1},
    "random, statistics of 10 batches": RANDOM,
    "random, statistics of 40 batches": {**RANDOM, "bn_batches": 40},
    "random, statistics of the supernet": RANDOM,
    "random, 10 epochs": {**RANDOM, "epochs": 10},
    "random, 5 epochs": {**RANDOM, "epochs": 5},
    "fair, entangled weights": FAIR,
    # Candidates with weights of their own.
    **{
        name: {**settings, **OWN}
        for name, settings in {
            "random, own weights": RANDOM,
            "fair": FAIR,
            "random, rate 0.05": {**RANDOM, **SLOWER},
            "fair, rate 0.05": {**FAIR, **SLOWER},
            "fair, 8 epochs, rate 0.05": {**FAIR, **SLOWER, "warmup_epochs": 7, "epochs": 8},
            "fair, 40 epochs, rate 0.05": {**FAIR, **SLOWER, "warmup_epochs": 39, "epochs": 40},
            "fair, batches of 32, rate 0.05": {**FAIR, **SLOWER, "batch_size": 32},
        }.items()
    },
}


def run_one(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Train one supernet and rank all networks with it, in this process."""
    from load import SPACE, TARGETS, GroundTruth
    from search_quality import COMMON

    from nni_proxyless.search import judge
    from nni_proxyless.search.prepare import prepare
    from nni_proxyless.search.recipe import Recipe
    from nni_proxyless.search.run import run_search

    if job["variant"].endswith("of the supernet"):
        judge.reestimate_batch_norm = lambda *_: None
    target = next(iter(TARGETS))
    settings = {
        **COMMON,
        **VARIANTS[job["variant"]],
        "space": str(SPACE),
        "data_dir": job["data"],
        "seed": job["seed"],
        "budget_ms": float(GroundTruth().latency_ms[target].max()) * 1.001,
        "target": target,
        "targets": {target: {"table": str(TARGETS[target])}},
    }
    with tempfile.TemporaryDirectory() as folder:
        run_search(prepare(Recipe.from_dict(settings)), Path(folder))
        with (Path(folder) / "history.csv").open(encoding="utf-8", newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
        with (Path(folder) / "finalists.csv").open(encoding="utf-8", newline="") as file:
            ranked = list(csv.DictReader(file))
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


def read(path: Path = RESULTS) -> dict[tuple[str, int], list[dict[str, str]]]:
    """Variant and seed to the lines of its networks."""
    found: dict[tuple[str, int], list[dict[str, str]]] = defaultdict(list)
    for row in read_lines(path):
        found[row["variant"], int(row["seed"])].append(row)
    return dict(found)


def ranking(rows: list[dict[str, str]]) -> dict[str, float]:
    """Networks to accuracies with shared weights."""
    return {row["architecture"]: float(row["accuracy"]) for row in rows}


def summary(found: dict[tuple[str, int], list[dict[str, str]]]) -> None:
    """The table: rank correlation over all networks, and over those within each budget."""
    from load import GroundTruth
    from scipy.stats import spearmanr
    from search_quality import BUDGETS, TARGETS

    truth = GroundTruth()
    say = sys.stdout.write
    say("| supernet | seeds | Spearman, all networks: mean (range) | within the budgets: mean | regret of the best ")
    say("by shared weights, points | training, s | ranking one, s |\n|---|---|---|---|---|---|---|\n")
    for variant in dict.fromkeys(name for name, _ in found):
        of = [rows for (name, _), rows in sorted(found.items()) if name == variant]
        overall, within, regrets = [], [], []
        for rows in of:
            shared = np.array([ranking(rows)[name] for name in truth.names])
            overall.append(spearmanr(shared, truth.accuracy).statistic)
            for target, part in itertools.product(TARGETS, BUDGETS):
                feasible = truth.latency_ms[target] <= truth.budget(target, part)
                within.append(spearmanr(shared[feasible], truth.accuracy[feasible]).statistic)
                own = truth.accuracy[feasible]
                regrets.append(100 * (own.max() - own[shared[feasible].argmax()]))
        say(f"| {variant} | {len(of)} | {np.mean(overall):.2f} ({min(overall):.2f}–{max(overall):.2f}) ")
        say(f"| {np.mean(within):.2f} | {np.mean(regrets):.2f} ")
        say(f"| {np.median([float(rows[0]['training_seconds']) for rows in of]):.0f} ")
        say(f"| {np.median([float(rows[0]['seconds_each']) for rows in of]):.2f} |\n")


def limits(found: dict[tuple[str, int], list[dict[str, str]]]) -> None:
    """How little regret is possible: all networks ranked by several supernets at once, and by their own trainings.

    Beside it, how often what is ranked first is better than what random best-of-8 takes with the same budget, by seed.

    The last row is what knowing every network's true accuracy would leave, since the best of hundreds of noisy means is
    partly the luckiest: truths are drawn from what the measured means and their noise leave open, 1,000 times.
    """
    from load import GroundTruth
    from scipy.stats import spearmanr
    from search_quality import BUDGETS, TARGETS, random_rows

    from nni_proxyless.decoding.ranking import additive_fit

    truth = GroundTruth()
    cells = {
        (target, part): np.flatnonzero(truth.latency_ms[target] <= truth.budget(target, part))
        for part, target in itertools.product(BUDGETS, TARGETS)
    }
    choices = [dict(enumerate(name.split())) for name in truth.names]
    of_variant: dict[str, list[list[float]]] = defaultdict(list)
    for (variant, _), lines in sorted(found.items()):
        of_variant[variant].append([ranking(lines)[name] for name in truth.names])
    by_eight: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in random_rows(len(of_variant["random"])):
        if row["strategy"] == "random_best_of_8":
            by_eight[row["target"], float(row["budget"])].append(float(row["accuracy"]))

    def first(values: Any, cell: Any, smoothed: bool) -> float:
        """Accuracy of the network that is ranked first among those of a cell."""
        own = values[cell]
        if smoothed:
            own = np.array(additive_fit([choices[i] for i in cell], own.tolist()))
        return float(truth.accuracy[cell][own.argmax()])

    def scored(rankings: Any, smoothed: bool) -> str:
        regrets, better = [], {part: [] for part in BUDGETS}  # type: dict[float, list[bool]]
        for values, ((target, part), cell) in itertools.product(rankings, cells.items()):
            accuracy = first(values, cell, smoothed)
            regrets.append(100 * (truth.accuracy[cell].max() - accuracy))
            better[part] += [accuracy > other for other in by_eight[target, part]]
        return f"{np.mean(regrets):.2f} | {_of_ten(better)}"

    say = sys.stdout.write
    parts = ", ".join(map(str, BUDGETS))
    say("\n| ranked by | Spearman, all networks | regret of the best, points ")
    say(f"| better than random best-of-8, of 10, budget {parts} | smoothed: regret | smoothed: better |\n")
    say("|---|---|---|---|---|---|\n")
    for count, variant in [
        *itertools.product((1, 2, 5, 10), ["random"]),
        *itertools.product((1, 2, 4), ["random, 10 epochs", "random, 5 epochs"]),
    ]:
        shared = np.array(of_variant[variant])
        means = [part.mean(0) for part in np.split(shared[: len(shared) // count * count], len(shared) // count)]
        spearman = np.mean([spearmanr(mean, truth.accuracy).statistic for mean in means])
        say(f"| {count} {variant} | {spearman:.2f} | {scored(means, False)} | {scored(means, True)} |\n")
    say(f"| the trainings themselves | 1 | {scored([truth.accuracy], False)} | {scored([truth.accuracy], True)} |\n")
    generator, noise = np.random.default_rng(0), truth.seed_noise**2 / truth.accuracies.shape[1]
    left, better = [], {part: [] for part in BUDGETS}  # type: tuple[list[float], dict[float, list[bool]]]
    for (target, part), cell in cells.items():
        of = truth.accuracy[cell]
        known = 1 - noise / of.var()
        for _ in range(1000):
            true = of.mean() + known * (of - of.mean()) + generator.normal(0, np.sqrt(known * noise), len(of))
            left.append(of.max() - of[true.argmax()])
            better[part] += [of[true.argmax()] > other for other in by_eight[target, part]]
    say(f"| their true accuracies | | {100 * np.mean(left):.2f} | {_of_ten(better)} | | |\n")


def _of_ten(better: dict[float, list[bool]]) -> str:
    return ", ".join(f"{10 * np.mean(of):.1f}" for of in better.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "supernet")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["random"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--summary", action="store_true", help="only print the table of what there is")
    options = parser.parse_args()
    if options.job:
        answer(options.job, run_one)
        return
    if not options.summary:
        train(options)
    summary(read())
    limits(read())


def train(options: argparse.Namespace) -> None:
    """Train the supernets that are not there yet."""
    from train import Training, data_file, make_data

    data = str(make_data(options.data, Training(), data_file()))
    known = read()
    jobs = [
        {"variant": variant, "seed": seed, "data": data}
        for seed, variant in itertools.product(range(options.seeds), options.variants)
        if (variant, seed) not in known
    ]
    for rows in results(__file__, jobs, options.processes, options.minutes):
        append(rows, RESULTS, COLUMNS)
        sys.stdout.write(f"{rows[0]['variant']}, seed {rows[0]['seed']}: {rows[0]['training_seconds']} s\n")


if __name__ == "__main__":
    main()
