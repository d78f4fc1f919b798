"""Tables of accuracy and latency on CIFAR-10, and a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.cifar10.settings import MOBILENET, NNI, RANDOM, TARGETS, network, read
from benchmarks.constants import CIFAR10_RESULTS
from benchmarks.markdown import markdown_table

# Target, family (a strategy or MobileNetV2), and budget (or width of MobileNetV2).
Key = tuple[str, str, str]
# Milliseconds and accuracy of the networks of each target and family.
Points = dict[tuple[str, str], list[tuple[float, float]]]


@dataclass
class Results:
    """What the CSV files contain.

    Attributes:
        accuracy: Network to test accuracy of each training, in percent.
        networks: Key to networks, each with the seed of its search.
        latency: Processor to network and target to latency in milliseconds, median of the rounds.
        above: Key to points above the better random network of the same target, budget and seed, for each search.
    """

    accuracy: dict[str, list[float]]
    networks: dict[Key, list[tuple[str, str]]]
    latency: dict[str, dict[tuple[str, str], float]]
    above: dict[Key, list[float]] = field(default_factory=dict)


@dataclass
class Line:
    """A row of the main table: the networks of one key.

    Attributes:
        key: Target, family, and budget or width.
        milliseconds: Mean latency on each processor; none where a network was not measured.
        accuracy: Mean test accuracy, in percent.
        trainings: Accuracy of each training; a semicolon separates searches.
        multiply_adds: Mean, in millions.
        above_mobilenet: Points above MobileNetV2 at equal latency on each processor.
        speedup: How many times as fast as MobileNetV2 at equal accuracy on each processor.
        above_random: Points above the better random network, for each search.
    """

    key: Key
    milliseconds: list[str]
    accuracy: float
    trainings: str
    multiply_adds: float
    above_mobilenet: list[str]
    speedup: list[str]
    above_random: list[float]


def load_results() -> Results:
    """Read the CSV files."""
    accuracy: dict[str, list[float]] = {}
    for r in read("retrained"):
        accuracy.setdefault(r["network"], []).append(100 * float(r["top1"]))
    networks: dict[Key, list[tuple[str, str]]] = {}
    for target, name in itertools.product(TARGETS, accuracy):
        if name.startswith("mobilenet_v2_"):
            networks[target, MOBILENET, name.rsplit("_", 1)[1]] = [(name, "")]
    for r in sorted(read("searches"), key=lambda r: int(r["seed"])):
        if r["architecture"] in accuracy:
            networks.setdefault((r["target"], r["strategy"], r["budget"]), []).append((r["architecture"], r["seed"]))
    times: dict[str, dict[tuple[str, str], list[float]]] = {}
    for r in read("latency"):
        of = times.setdefault(r["processor"], {})
        of.setdefault((r["network"], r["target"]), []).append(float(r["milliseconds"]))
    latency = {name: {key: float(np.median(of)) for key, of in each.items()} for name, each in times.items()}
    return Results(accuracy, networks, latency, _above_random(networks, accuracy))


def _above_random(
    networks: dict[Key, list[tuple[str, str]]], accuracy: dict[str, list[float]]
) -> dict[Key, list[float]]:
    drawn: dict[tuple[str, str, str], list[float]] = {}  # target, budget and seed
    for (target, family, budget), of in networks.items():
        for name, seed in of if family in RANDOM else ():
            drawn.setdefault((target, budget, seed), []).append(float(np.mean(accuracy[name])))
    return {
        (target, family, budget): [
            float(np.mean(accuracy[name])) - max(drawn[target, budget, seed])
            for name, seed in of
            if (target, budget, seed) in drawn
        ]
        for (target, family, budget), of in networks.items()
        if family not in RANDOM and family != MOBILENET
    }


def lines(results: Results) -> tuple[list[Line], dict[str, Points]]:
    """The rows of the main table, and the points of the picture for each processor."""
    made: list[Line] = []
    points: dict[str, Points] = {processor: {} for processor in results.latency}
    for target, family, what in sorted(results.networks, key=lambda key: (key[0], key[1] != MOBILENET, key)):
        networks = results.networks[target, family, what]
        each = [float(np.mean(results.accuracy[name])) for name, _ in networks]
        mean = float(np.mean(each))
        line = Line(
            (target, family, what),
            [],
            mean,
            "; ".join(", ".join(f"{value:.1f}" for value in results.accuracy[name]) for name, _ in networks),
            float(np.mean([network(name).multiply_adds / 1e6 for name, _ in networks])),
            [],
            [],
            results.above.get((target, family, what), []),
        )
        for processor, of in results.latency.items():
            measured = [of[name, target] for name, _ in networks if (name, target) in of]
            if len(measured) < len(networks):
                cells = ("", "", "")
            else:
                took = float(np.mean(measured))
                mobilenets = [] if family == MOBILENET else points[processor].get((target, MOBILENET), [])
                cells = (f"{took:.2f}", *against(mobilenets, took, mean))
                points[processor].setdefault((target, family), []).extend(zip(measured, each, strict=True))
            for column, cell in zip((line.milliseconds, line.above_mobilenet, line.speedup), cells, strict=True):
                column.append(cell)
        made.append(line)
    return made, points


def against(mobilenets: list[tuple[float, float]], took: float, accuracy: float) -> tuple[str, str]:
    """Compare a network with MobileNetV2, interpolated linearly between its widths.

    Beyond the narrowest and the widest MobileNetV2 only a bound is known. A network that is faster than all of them is
    at least that many points above; one that is more accurate than all of them is at least that many times as fast.

    Args:
        mobilenets: Milliseconds and accuracy of MobileNetV2 at each width.
        took: Latency of the network in milliseconds.
        accuracy: Accuracy of the network in percent.

    Returns:
        Points above MobileNetV2 at equal latency, and times as fast at equal accuracy; empty without MobileNetV2.
    """
    of = sorted(mobilenets)
    if len(of) < 2:
        return "", ""
    milliseconds, accuracies = zip(*of, strict=True)
    above, ratio = accuracy - np.interp(took, milliseconds, accuracies), np.interp(accuracy, accuracies, milliseconds)
    least = "≥ " if took < milliseconds[0] else "≤ " if took > milliseconds[-1] else ""
    bound = "≥ " if accuracy > accuracies[-1] else "≤ " if accuracy < accuracies[0] else ""
    return f"{least}{above:.1f}", f"{bound}{ratio / took:.2f}"


def main_table(made: list[Line]) -> str:
    """Accuracy and latency of the networks of each target, family and budget."""
    columns = (
        "target", "network", "budget", "milliseconds (8 images)", "test accuracy, % (each search: each training)",
        "multiply-adds, M", "above MobileNetV2 at equal latency, points", "times as fast at equal accuracy",
        "above the better random best-of-8, points (each search)",
    )  # fmt: skip
    return markdown_table(
        columns,
        (
            (
                *line.key,
                join(line.milliseconds),
                f"{line.accuracy:.1f} ({line.trainings})",
                f"{line.multiply_adds:.1f}",
                join(line.above_mobilenet),
                join(line.speedup),
                ", ".join(f"{gain:.1f}" for gain in line.above_random),
            )
            for line in made
        ),
    )


def gain_table(results: Results, families: Iterable[str] | None = None) -> str:
    """How far each strategy is above the better random network of the same target, budget and seed."""
    columns = (
        "target", "network", "searches", "above the better random best-of-8, points: mean ± standard error (worst)",
        "better", "by a point or more",
    )  # fmt: skip
    rows = []
    for target, family in dict.fromkeys((target, family) for target, family, _ in results.above):
        gains = [gain for key, of in results.above.items() if key[:2] == (target, family) for gain in of]
        if len(gains) > 1 and (families is None or family in families):
            error = np.std(gains, ddof=1) / np.sqrt(len(gains))
            rows.append(
                (
                    target,
                    family,
                    len(gains),
                    f"{np.mean(gains):.1f} ± {error:.1f} ({min(gains):.1f})",
                    sum(gain > 0 for gain in gains),
                    sum(gain >= 1 for gain in gains),
                )
            )
    return markdown_table(columns, rows)


def join(of: list[str]) -> str:
    """The cells of each processor in one."""
    return "; ".join(of) if any(of) else ""


def draw(points: dict[str, Points]) -> None:
    """Accuracy against latency: a row for each processor, a column for each target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = {family for of in points.values() for _, family in of}
    families = [name for name in (MOBILENET, "proxyless", *RANDOM, *NNI) if name in known]
    figure, grid = pyplot.subplots(
        len(points), len(TARGETS), figsize=(11, 0.4 + 3.8 * len(points)), sharey=True, squeeze=False
    )
    marks: dict[str, Any] = {}
    for axis, (processor, target) in zip(grid.flat, itertools.product(points, TARGETS), strict=True):
        for number, family in enumerate(families):
            of = sorted(points[processor].get((target, family), []))
            if of:
                style = "-o" if family == MOBILENET else "o"
                (marks[family],) = axis.plot(*zip(*of, strict=True), style, color=f"C{number}")
        axis.set_title(f"{target}, {processor}", fontsize=10)
        axis.set_xlabel("measured latency, ms for 8 images")
        axis.grid(alpha=0.3)
    for row in grid:
        row[0].set_ylabel("test accuracy, %")
    figure.legend([marks[name] for name in families], families, loc="lower center", ncols=len(families))
    figure.tight_layout(rect=(0, 0.07 / len(points), 1, 1))
    figure.savefig(CIFAR10_RESULTS / "accuracy.png", dpi=110)
