"""Strategies that search once for several devices and budgets.

Without latency in the loss, the supernet and the path probabilities depend on neither device nor budget; only decoding
does. So one search per seed gives the results of six: six searches of a seed gave every network the same accuracy with
shared weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.results_csv import read_rows
from nni_proxyless.decoding.checkpoint import SearchCheckpoint
from nni_proxyless.decoding.ranking import rank_values
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.operators import total_activations
from nni_proxyless.strategies.latency_aware import LatencyAwareStrategy
from nni_proxyless.strategies.nni_strategies import LatencyDARTS, LatencyENAS, LatencyGumbelDARTS, LatencyNniProxyless
from nni_proxyless.strategies.proxyless import ProxylessNAS
from nni_proxyless.supernet.space import require_description

Budget = tuple[str, float]  # path of a latency table, budget in milliseconds


class AllBudgets(LatencyAwareStrategy):
    """A recipe names one as its strategy: `benchmarks.search_quality.all_budgets:DARTS`.

    Args:
        budgets: Tables and budgets; the final selection compares the most likely networks within each.
        finalists: How many networks it compares within each budget.
        **kwargs: Arguments of the strategy itself.

    Raises:
        ValueError: Latency is in the loss.
    """

    def __init__(self, *, budgets: list[Budget], finalists: int, **kwargs: Any) -> None:
        super().__init__(finalists=finalists, **kwargs)
        if getattr(self, "latency_weight", 0.0):
            raise ValueError("with latency in the loss each budget needs a search of its own")
        self._budgets = budgets
        self._count_each = finalists

    def finalists(self) -> list[dict[str, Any]]:
        spec = require_description(self.supernet, "a search for all budgets")
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for table, budget_ms in self._budgets:
            costs = LatencyTable.load(table).costs(spec)
            for choices in self.distribution().with_costs(costs).k_most_likely(self._count_each, budget_ms):
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


def settings(name: str, budgets: list[Budget]) -> dict[str, Any]:
    """The settings of a recipe that replace `strategy: <name>`."""
    return {"strategy": f"{__name__}:{STRATEGIES[name].__name__}", "strategy_args": {"budgets": budgets}}


def finalists(output: Path, budget: Budget, count: int) -> list[dict[str, str]]:
    """Rows of `finalists.csv` that a search for this budget alone would have, the most likely network first.

    They have `activations` as well, which such a search takes into account.
    """
    rows = {row["architecture"]: row for row in read_rows(output / "finalists.csv")}
    found = SearchCheckpoint.load(output)
    likeliest = found.for_table(LatencyTable.load(budget[0])).k_most_likely(count, budget[1])
    networks = [Architecture.of_space(found.spec, choices) for choices in likeliest]
    return [{**rows[one.candidate_names], "activations": str(total_activations(one.operators()))} for one in networks]


def best(compared: list[dict[str, str]]) -> str:
    """The network that a search exports if its final selection compares these rows of `finalists`."""
    choices = [dict(enumerate(row["architecture"].split())) for row in compared]
    columns = ("accuracy", "log_likelihood", "multiply_adds", "activations")
    values = rank_values(choices, *([float(row[key]) for row in compared] for key in columns))
    return compared[values.index(max(values))]["architecture"]


def seconds(output: Path, count: int) -> float:
    """Seconds of a search that compares `count` networks; the time of comparing the other networks is left out."""
    after = [float(row["seconds"]) for row in read_rows(output / "history.csv")]
    compared = len(read_rows(output / "finalists.csv"))
    training = after[-2] * len(after) / (len(after) - 1)
    return training + count * (after[-1] - training) / compared
