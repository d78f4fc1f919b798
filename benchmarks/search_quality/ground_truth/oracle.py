"""How precise the ground truth is: the regret of whoever knows it, and estimates against trainings they have not seen.

An oracle picks the network with the best accuracy within each budget. Its regret is the true accuracy that its network
lacks to the truly best one, averaged over the targets and budgets. The true accuracies are drawn from their
distribution given all trainings (`estimates.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.constants import GROUND_TRUTH_BUDGETS
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.ground_truth.estimates import Estimates, Floats
from benchmarks.search_quality.ground_truth.load import GroundTruth

Positions = npt.NDArray[np.intp]
_EVEN, _ODD = slice(0, None, 2), slice(1, None, 2)


def budgets(truth: GroundTruth) -> dict[str, Positions]:
    """Name of each pair of target and budget to the positions of the networks within it."""
    pairs = itertools.product(truth.latency_ms, GROUND_TRUTH_BUDGETS)
    return {f"{target}, {part}": truth.within(target, truth.budget(target, part)) for target, part in pairs}


def picks(accuracy: Floats, within: Sequence[Positions]) -> list[int]:
    """Position of the best network within each budget."""
    return [int(of[accuracy[of].argmax()]) for of in within]


def picked_regret(estimates: Estimates, within: Sequence[Positions], picked: Sequence[int]) -> Floats:
    """True regret of one network for each budget, averaged over the budgets, in points, shape (draws,)."""
    lost = [estimates.best(of) - estimates.draws[:, one] for of, one in zip(within, picked, strict=True)]
    mean: Floats = np.mean(lost, axis=0)
    return mean


def repeated_regret(estimates: Estimates, trainings: Floats, within: Sequence[Positions]) -> Floats:
    """The same if networks are picked by the mean of as many new trainings: a parametric bootstrap, shape (draws,)."""
    noise = np.random.default_rng(1).standard_normal(estimates.draws.shape) * estimates.noise / np.sqrt(trainings)
    means = estimates.draws + noise
    every = np.arange(len(means))
    lost = [estimates.best(of) - estimates.draws[every, of[means[:, of].argmax(1)]] for of in within]
    mean: Floats = np.mean(lost, axis=0)
    return mean


def oracle_table(truth: GroundTruth) -> str:
    """Regret of oracles, with its 95 % interval."""
    estimates, within = truth.estimates, list(budgets(truth).values())
    regrets = {
        "the mean of its trainings": picked_regret(estimates, within, picks(truth.accuracy, within)),
        "the mean of as many new trainings": repeated_regret(estimates, truth.trainings.astype(float), within),
        "its estimated accuracy": picked_regret(estimates, within, picks(estimates.accuracy, within)),
    }
    rows = [(name, f"{of.mean():.2f}", _interval(of)) for name, of in regrets.items()]
    return markdown_table(("the best network is picked by", "true regret, points", "95 % interval"), rows)


def best_table(truth: GroundTruth) -> str:
    """The network with the best mean within each budget, what it is worth, and the best true accuracy."""
    estimates, rows = truth.estimates, []
    for name, within in budgets(truth).items():
        one = picks(truth.accuracy, [within])[0]
        best = estimates.best(within)
        rows.append(
            (
                name,
                f"{100 * truth.accuracy[one]:.1f} ± {100 * truth.standard_error[one]:.1f} %",
                int(truth.trainings[one]),
                f"{estimates.accuracy[one]:.1f} ± {estimates.error[one]:.1f} %",
                f"{best.mean():.1f} % ({_interval(best, 1)})",
            )
        )
    columns = (
        "budget", "best mean of trainings ± standard error", "trainings of this network", "its estimated accuracy",
        "true accuracy of the best network (95 % interval)",
    )  # fmt: skip
    return markdown_table(columns, rows)


def numbers_table(truth: GroundTruth) -> str:
    """Trainings, noise, and errors of means and estimates."""
    counts, error = truth.trainings, 100 * truth.standard_error
    estimates = truth.estimates
    main, pair, own = (estimates.deviations[kind] for kind in ("main", "pair", "own"))
    many = counts > counts.min()
    slope, spread = np.mean([_calibration(truth, *halves) for halves in ((_EVEN, _ODD), (_ODD, _EVEN))], axis=0)
    rows: list[tuple[str, object]] = [
        ("networks", len(counts)),
        ("trainings", int(counts.sum())),
        (f"networks with more than {counts.min()} trainings", int(many.sum())),
        ("most trainings of a network", int(counts.max())),
        ("standard deviation of a single training, points", f"{100 * truth.seed_noise:.2f}"),
        ("standard error of a network's mean: smallest, largest", f"{error.min():.2f}, {error.max():.2f}"),
        ("standard error of an estimated accuracy: mean", f"{estimates.error.mean():.2f}"),
        ("standard deviation of the effects of a layer's candidate, of a pair, of one network",
         f"{main:.2f}, {pair:.2f}, {own:.2f}"),
        ("slope of means from half of the trainings against estimates from the other half (ideal: 1)", f"{slope:.2f}"),
        ("root mean square of their differences over the predicted deviations (ideal: 1)", f"{spread:.2f}"),
    ]  # fmt: skip
    return markdown_table(("quantity", "value"), rows)


def halves_table(truth: GroundTruth, exported: Mapping[str, Sequence[str]]) -> str:
    """Estimates from one half of the seeds, and the mean of the other half, which is free of luck.

    Each half judges the other once, and the table has the mean of both ways.

    Args:
        truth: The ground truth.
        exported: Who exported networks, to the networks; those that were exported twice count twice.
    """
    within = list(budgets(truth).values())
    ways = []
    for first, second in ((_EVEN, _ODD), (_ODD, _EVEN)):
        estimates = truth.estimated(first)
        mean, unseen = (100 * np.nanmean(truth.accuracies[:, half], 1) for half in (first, second))
        counts = np.isfinite(truth.accuracies[:, second]).sum(1)
        groups = {"best mean within each budget": picks(mean, within)}
        groups["best estimate within each budget"] = picks(estimates.accuracy, within)
        groups |= {name: [truth.index(one) for one in names] for name, names in exported.items()}
        ways.append([_compared(estimates, mean, unseen, counts, chosen) for chosen in groups.values()])
    rows = []
    for name, (mine, other) in zip(groups, zip(*ways, strict=True), strict=True):
        seen, estimated, unseen_mean, error = np.mean([mine, other], axis=0)
        difference = f"{estimated - unseen_mean:+.2f} ± {error:.2f}"
        rows.append((name, f"{seen:.2f} %", f"{estimated:.2f} %", f"{unseen_mean:.2f} %", difference))
    columns = (
        "networks", "mean of one half of the trainings", "estimate from this half", "mean of the other half",
        "estimate − other half ± standard error",
    )  # fmt: skip
    return markdown_table(columns, rows)


def _calibration(truth: GroundTruth, first: slice, second: slice) -> tuple[float, float]:
    """Slope of the means of one half of the trainings on estimates from the other, and their scaled difference."""
    estimates, unseen = truth.estimated(first), 100 * np.nanmean(truth.accuracies[:, second], 1)
    counts = np.isfinite(truth.accuracies[:, second]).sum(1)
    predicted = np.hypot(estimates.error, estimates.noise / np.sqrt(counts))
    slope = float(np.polyfit(estimates.accuracy, unseen, 1)[0])
    return slope, float(np.sqrt((((unseen - estimates.accuracy) / predicted) ** 2).mean()))


def _compared(
    estimates: Estimates, mean: Floats, unseen: Floats, counts: npt.NDArray[np.int64], chosen: Sequence[int]
) -> tuple[float, float, float, float]:
    """Mean, estimate, and mean of the unseen trainings of some networks, and the error of the last two's difference."""
    weights = np.bincount(chosen, minlength=len(mean)) / len(chosen)
    of_estimate = (estimates.draws @ weights).std()
    of_unseen = estimates.noise * np.sqrt((weights**2 / counts).sum())
    error = float(np.hypot(of_estimate, of_unseen))
    return float(weights @ mean), float(weights @ estimates.accuracy), float(weights @ unseen), error


def _interval(values: Floats, digits: int = 2) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:.{digits}f} to {high:.{digits}f}"
