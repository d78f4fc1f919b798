"""Strategies searching once for several devices and budgets.

Without latency in what they learn from, their supernet and probabilities depend on neither; only decoding does. So one
search per seed tells what six would: six searches of a seed gave every network the same accuracy with shared weights.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from nni_proxyless.decoding.checkpoint import SearchCheckpoint
from nni_proxyless.decoding.knapsack import likeliest_within
from nni_proxyless.decoding.ranking import rank_values
from nni_proxyless.latency import LatencyTable
from nni_proxyless.strategies.baselines import LatencyDARTS, LatencyENAS, LatencyGumbelDARTS, LatencyNniProxyless
from nni_proxyless.strategies.latency_aware import LatencyAwareStrategy
from nni_proxyless.strategies.proxyless import ProxylessNAS

Cell = tuple[str, float]  # path of a table, budget in milliseconds


class AllBudgets(LatencyAwareStrategy):
    """As a recipe's strategy: `all_budgets:DARTS` and so on.

    Args:
        cells: Tables and budgets; the likeliest networks within each are compared.
        **kwargs: The strategy's own.
    """

    def __init__(self, *, cells: list[Cell], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if getattr(self, "latency_weight", 0.0):
            raise ValueError("with latency in the loss each budget needs a search of its own")
        self._cells = cells

    def finalists(self) -> list[dict[str, Any]]:
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for table, budget_ms in self._cells:
            costs = self._costs_of(LatencyTable.load(table), self.supernet)
            for choices in likeliest_within(self.path_probs(), costs, budget_ms, self._num_finalists):
                found.setdefault(tuple(choices.values()), choices)
        return list(found.values())


class Proxyless(AllBudgets, ProxylessNAS):
    """`proxyless` with the objective `add_linear`, whose weight is 0."""


class NniProxyless(AllBudgets, LatencyNniProxyless):
    """`nni_proxyless_builtin`."""


class DARTS(AllBudgets, LatencyDARTS):
    """`darts`."""


class GumbelDARTS(AllBudgets, LatencyGumbelDARTS):
    """`gumbel_darts`."""


class ENAS(AllBudgets, LatencyENAS):
    """`enas`."""


STRATEGIES = {
    "proxyless": Proxyless,
    "nni_proxyless_builtin": NniProxyless,
    "darts": DARTS,
    "gumbel_darts": GumbelDARTS,
    "enas": ENAS,
}


def settings(name: str, cells: list[Cell]) -> dict[str, Any]:
    """What a recipe says instead of `strategy: <name>`."""
    return {"strategy": f"all_budgets:{STRATEGIES[name].__name__}", "strategy_args": {"cells": cells}}


def finalists(output: Path, cell: Cell, count: int) -> list[dict[str, str]]:
    """Of a finished search: the lines of `finalists.csv` that one with this budget would have, the likeliest first."""
    with (output / "finalists.csv").open(encoding="utf-8", newline="") as file:
        lines = {row["architecture"]: row for row in csv.DictReader(file)}
    found = SearchCheckpoint.load(output)
    costs = LatencyTable.load(cell[0]).costs(found.spec)
    likeliest = likeliest_within(found.probs, costs, cell[1], count)
    return [lines[" ".join(choices[layer.label] for layer in found.spec.layers)] for choices in likeliest]


def best(compared: list[dict[str, str]]) -> str:
    """The network that a search exports of those that it has compared, `finalists`."""
    choices = [dict(enumerate(line["architecture"].split())) for line in compared]
    columns = ("accuracy", "log_likelihood", "multiply_adds")
    values = rank_values(choices, *([float(line[key]) for line in compared] for key in columns))
    return compared[values.index(max(values))]["architecture"]


def seconds(output: Path, count: int) -> float:
    """Of one core, for a search that compares `count` networks; what the others took is left out."""
    with (output / "history.csv").open(encoding="utf-8", newline="") as file:
        after = [float(row["seconds"]) for row in csv.DictReader(file)]
    with (output / "finalists.csv").open(encoding="utf-8", newline="") as file:
        compared = len(list(csv.DictReader(file)))
    training = after[-2] * len(after) / (len(after) - 1)
    return training + count * (after[-1] - training) / compared
