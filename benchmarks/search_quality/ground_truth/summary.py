"""Tables and a picture of the ground truth, which show whether it is fit to judge searches by.

    python -m benchmarks.search_quality.ground_truth.summary

The script prints the tables, writes `ground_truth.csv`, and draws `accuracy.png`: estimated accuracy against latency on
both targets and against multiply-adds, and one seed against the other.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
from scipy.stats import spearmanr

from benchmarks.constants import GROUND_TRUTH, GROUND_TRUTH_BUDGETS, TARGET_NAMES
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.ground_truth.oracle import best_table, numbers_table, oracle_table
from nni_proxyless.files.writing import write_csv

GROUPS = 5


def main() -> None:
    truth = GroundTruth()
    made = (
        numbers_table, best_table, oracle_table, budget_table, cost_table, correlation_table,
    )  # fmt: skip
    sys.stdout.write("\n".join(table(truth) for table in made))
    write(truth)


def write(truth: GroundTruth) -> None:
    """Write `ground_truth.csv` and draw `accuracy.png`."""
    _write_csv(truth)
    _draw(truth)


def cost_table(truth: GroundTruth) -> str:
    """Spread of estimated accuracies among networks of nearly equal cost: each fifth of the networks, by each cost."""
    rows = []
    for name, cost in {**truth.latency_ms, "multiply-adds": truth.multiply_adds}.items():
        order = np.argsort(cost, kind="stable")
        for number, group in enumerate(np.array_split(order, GROUPS), start=1):
            rows.append((f"{name}, fifth {number}", len(group), *_spread(truth, group)))
    columns = ("cost", "networks", "10th to 90th percentile of accuracy within the fifth", "spread")
    return markdown_table(columns, rows)


def budget_table(truth: GroundTruth) -> str:
    """Spread of estimated accuracies among the networks within each budget."""
    rows = []
    for (name, cost), budget in itertools.product(truth.latency_ms.items(), GROUND_TRUTH_BUDGETS):
        within = truth.within(name, truth.budget(name, budget))
        ratio = f"{cost[within].max() / cost[within].min():.2f}"
        rows.append((f"{name}, {budget}", len(within), ratio, *_spread(truth, within)))
    columns = (
        "budget", "networks within it", "slowest / fastest", "10th to 90th percentile of accuracy", "spread",
    )  # fmt: skip
    return markdown_table(columns, rows)


def correlation_table(truth: GroundTruth) -> str:
    """Rank correlation of estimated accuracy with each cost, and between the first two seeds."""
    costs = {**truth.latency_ms, "multiply-adds": truth.multiply_adds}
    rows = [(name, f"{spearmanr(cost, truth.estimates.accuracy).statistic:.2f}") for name, cost in costs.items()]
    between = spearmanr(truth.accuracies[:, 0], truth.accuracies[:, 1]).statistic
    rows.append(("one training with another", f"{between:.2f}"))
    return markdown_table(("rank correlation of accuracy with", "Spearman"), rows)


def _spread(truth: GroundTruth, networks: np.ndarray) -> tuple[str, str]:
    low, high = np.percentile(truth.estimates.accuracy[networks], [10, 90])
    return f"{low:.1f} to {high:.1f} %", f"{high - low:.1f} points"


def _write_csv(truth: GroundTruth) -> None:
    """Cost and accuracies of each network, for other programs; accuracies are between 0 and 1."""
    latencies = [f"latency_ms_{target}" for target in truth.latency_ms]
    columns = (
        "architecture", "parameters", "multiply_adds", *latencies, "trainings", "mean_accuracy", "standard_error",
        "estimated_accuracy", "estimated_error",
    )  # fmt: skip
    accuracies = (
        truth.accuracy,
        truth.standard_error,
        truth.estimates.accuracy / 100,
        truth.estimates.error / 100,
    )
    rows = []
    for i, name in enumerate(truth.names):
        latency = (f"{of[i]:.6f}" for of in truth.latency_ms.values())
        costs = (int(truth.parameters[i]), int(truth.multiply_adds[i]), *latency)
        of_network = (name, *costs, int(truth.trainings[i]), *(f"{of[i]:.5f}" for of in accuracies))
        rows.append(dict(zip(columns, of_network, strict=True)))
    write_csv(GROUND_TRUTH / "ground_truth.csv", columns, rows)


def _draw(truth: GroundTruth) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(f"latency on {TARGET_NAMES[name]}, ms", cost) for name, cost in truth.latency_ms.items()]
    panels.append(("multiply-adds, millions", truth.multiply_adds / 1e6))
    columns = len(panels) + 1
    figure, axes = pyplot.subplots(1, columns, figsize=(4 * columns, 3.8), squeeze=False)
    for axis, (label, cost) in zip(axes[0], panels, strict=False):
        axis.scatter(cost, truth.estimates.accuracy, s=8, alpha=0.6)
        axis.set(xlabel=label, ylabel="estimated test accuracy, %")
    first, second = 100 * truth.accuracies[:, 0], 100 * truth.accuracies[:, 1]
    axes[0][-1].scatter(first, second, s=8, alpha=0.6)
    ends = [min(first.min(), second.min()), max(first.max(), second.max())]
    axes[0][-1].plot(ends, ends, color="grey", linewidth=0.8)
    axes[0][-1].set(xlabel="test accuracy with seed 0, %", ylabel="with seed 1, %")
    figure.tight_layout()
    figure.savefig(GROUND_TRUTH / "accuracy.png", dpi=110)


if __name__ == "__main__":
    main()
