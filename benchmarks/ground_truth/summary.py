"""Is the ground truth fit to judge searches by? Tables and pictures of what `train.py` has found.

    .venv/bin/python benchmarks/ground_truth/summary.py

Prints Markdown for the README, and draws `accuracy.png`: accuracy against latency on both targets and against
multiply-adds, and one seed against the other.
"""

from __future__ import annotations

import csv
import itertools
import sys

import matplotlib
import numpy as np
from load import FOLDER, GroundTruth
from scipy.stats import spearmanr

matplotlib.use("Agg")
from matplotlib import pyplot

GROUPS = 5
BUDGETS = (0.25, 0.5, 0.75)  # those of ../search_quality.py


def main() -> None:
    truth = GroundTruth()
    accuracy = 100 * truth.accuracy
    noise = 100 * truth.seed_noise
    costs = {**truth.latency_ms, "multiply-adds": truth.multiply_adds}
    say = sys.stdout.write
    say(f"{len(truth.names)} networks, {truth.accuracies.shape[1]} seeds; accuracy {accuracy.min():.1f} to ")
    say(f"{accuracy.max():.1f} %; one training varies by {noise:.2f} points (standard deviation)\n\n")
    say("| cost | networks | 10th to 90th percentile of accuracy within the fifth | spread |\n|---|---|---|---|\n")
    for name, cost in costs.items():
        order = np.argsort(cost, kind="stable")
        for number, group in enumerate(np.array_split(order, GROUPS), start=1):
            low, high = np.percentile(accuracy[group], [10, 90])
            say(f"| {name}, fifth {number} | {len(group)} | {low:.1f} to {high:.1f} % | {high - low:.1f} points |\n")
    say("\n| budget | networks within it | dearest / cheapest | 10th to 90th percentile of accuracy | spread |\n")
    say("|---|---|---|---|---|\n")
    for (name, cost), part in itertools.product(truth.latency_ms.items(), BUDGETS):
        within = cost <= truth.budget(name, part)
        low, high = np.percentile(accuracy[within], [10, 90])
        say(f"| {name}, {part} | {within.sum()} | {cost[within].max() / cost[within].min():.2f} ")
        say(f"| {low:.1f} to {high:.1f} % | {high - low:.1f} points |\n")
    say("\n| rank correlation of accuracy with | Spearman |\n|---|---|\n")
    for name, cost in costs.items():
        say(f"| {name} | {spearmanr(cost, accuracy).statistic:.2f} |\n")
    if truth.accuracies.shape[1] > 1:
        say(f"| itself, other seed | {spearmanr(truth.accuracies[:, 0], truth.accuracies[:, 1]).statistic:.2f} |\n")
    _write_csv(truth)
    _draw(truth)


def _write_csv(truth: GroundTruth) -> None:
    """All that is known of each network, for other programs."""
    with (FOLDER / "ground_truth.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        seeds = [f"accuracy_{i}" for i in range(truth.accuracies.shape[1])]
        latencies = [f"latency_ms_{target}" for target in truth.latency_ms]
        writer.writerow(["architecture", "parameters", "multiply_adds", *latencies, *seeds])
        for i, name in enumerate(truth.names):
            writer.writerow(
                [
                    name,
                    int(truth.parameters[i]),
                    int(truth.multiply_adds[i]),
                    *(f"{of[i]:.6f}" for of in truth.latency_ms.values()),
                    *truth.accuracies[i].tolist(),
                ]
            )


def _draw(truth: GroundTruth) -> None:
    panels = [(f"latency on {name}, ms", cost) for name, cost in truth.latency_ms.items()]
    panels.append(("multiply-adds, millions", truth.multiply_adds / 1e6))
    columns = len(panels) + (truth.accuracies.shape[1] > 1)
    figure, axes = pyplot.subplots(1, columns, figsize=(4 * columns, 3.8), squeeze=False)
    for axis, (label, cost) in zip(axes[0], panels, strict=False):
        axis.scatter(cost, 100 * truth.accuracy, s=8, alpha=0.6)
        axis.set(xlabel=label, ylabel="test accuracy, %")
    if truth.accuracies.shape[1] > 1:
        first, second = 100 * truth.accuracies[:, 0], 100 * truth.accuracies[:, 1]
        axes[0][-1].scatter(first, second, s=8, alpha=0.6)
        ends = [min(first.min(), second.min()), max(first.max(), second.max())]
        axes[0][-1].plot(ends, ends, color="grey", linewidth=0.8)
        axes[0][-1].set(xlabel="test accuracy with seed 0, %", ylabel="with seed 1, %")
    figure.tight_layout()
    figure.savefig(FOLDER / "accuracy.png", dpi=110)


if __name__ == "__main__":
    main()
