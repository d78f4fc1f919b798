"""Tables of the pages about CIFAR-10, made from the CSV files."""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks.cifar10.settings import MOBILENET, TARGETS
from benchmarks.cifar10.summary import Line, Results, gain_table, join, lines, load_results
from benchmarks.constants import CIFAR10_BUDGETS, TARGET_NAMES
from benchmarks.markdown import markdown_table

_NAMES = {
    MOBILENET: MOBILENET,
    "proxyless": "ProxylessNAS",
    "random_best_of_8": "random best-of-8",
    "darts": "NNI `DARTS`",
}
_STEPS = "proxyless, as many steps as DARTS"
# What the first seed's searches were run with, the recipe's defaults first.
_TRIED = (
    "proxyless", "proxyless, no architecture decay", "proxyless, no architecture decay, own weights",
    "proxyless_two_path, own weights",
)  # fmt: skip


@cache
def _results() -> Results:
    return load_results()


@cache
def _lines() -> dict[tuple[str, str, str], Line]:
    return {line.key: line for line in lines(_results())[0]}


def cifar10() -> str:
    """Accuracy and latency of what each strategy found; two latencies are those of the two processors."""
    columns = (
        "target", "network", "budget or width", "ms for 8 images", "test accuracy, % (trainings)",
        "multiply-adds, M", "points above MobileNetV2 at equal latency", "times as fast at equal accuracy",
        "points above random best-of-8 (searches)",
    )  # fmt: skip
    rows = []
    for target in TARGETS:
        made = [line for (of, family, _), line in _lines().items() if of == target and family in _NAMES]
        for line in sorted(made, key=lambda line: (list(_NAMES).index(line.key[1]), line.key[2])):
            rows.append(
                (
                    TARGET_NAMES[target],
                    _NAMES[line.key[1]],
                    line.key[2],
                    _both(line.milliseconds),
                    f"{line.accuracy:.1f} ({line.trainings})",
                    f"{line.multiply_adds:.1f}",
                    _both(line.above_mobilenet),
                    _both(line.speedup),
                    ", ".join(f"{round(gain, 1) + 0.0:.1f}" for gain in line.above_random),
                )
            )
    return markdown_table(columns, rows)


def _both(of: list[str]) -> str:
    return join([cell or "–" for cell in of]) if any(of) else ""


def cifar10_tried() -> str:
    """What made the difference: mean gain over random best-of-8 of the first seed's searches."""
    rows = []
    for family in _TRIED:
        gains = ([_results().above[target, family, str(budget)][0] for budget in CIFAR10_BUDGETS] for target in TARGETS)
        rows.append((family, *(f"{np.mean(of):.1f}" for of in gains)))
    return markdown_table(("search", *(TARGET_NAMES[target] for target in TARGETS)), rows)


def cifar10_steps() -> str:
    """Searches with as many steps as those of DARTS, beside DARTS, first seed."""
    rows = []
    for target in TARGETS:
        for budget in map(str, CIFAR10_BUDGETS):
            ours, darts = (_first_search(_lines()[target, family, budget]) for family in (_STEPS, "darts"))
            gains = _results().above[target, _STEPS, budget]
            rows.append((TARGET_NAMES[target], budget, ours, darts, f"{gains[0]:.1f}"))
    columns = ("target", "budget", "ProxylessNAS, %", "NNI `DARTS`, %", "ProxylessNAS above random best-of-8, points")
    return markdown_table(columns, rows)


def _first_search(line: Line) -> str:
    return line.trainings.split(";")[0]


TABLES = {
    "cifar10": cifar10,
    "cifar10_tried": cifar10_tried,
    "cifar10_steps": cifar10_steps,
    "cifar10_gains": lambda: gain_table(_results()),
}
