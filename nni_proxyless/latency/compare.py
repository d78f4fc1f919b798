"""Comparison of two latency tables that share operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LatencyTableError
from .arrays import spearman
from .entries import Choice, Entry, ModuleCall
from .table import LatencyTable


@dataclass(frozen=True)
class KindComparison:
    """Agreement of two tables on one kind of operator.

    Attributes:
        kind: Kind and kernel size, such as `mbconv k5`, or `all`.
        operators: Number of operators of this kind that both tables have.
        spearman: Rank correlation of the two tables' costs; 0 for fewer than two operators.
        ratio: Median ratio of the second table's cost to the first's.
    """

    kind: str
    operators: int
    spearman: float
    ratio: float


@dataclass(frozen=True)
class Disagreement:
    """An entry on which two tables disagree.

    Attributes:
        entry: Entry that both tables have.
        first: Cost of the entry in the first table.
        second: Cost of the entry in the second table.
        factor: Ratio of the second cost to the first, divided by the median ratio of all common entries.
    """

    entry: Entry
    first: float
    second: float
    factor: float


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two tables.

    Attributes:
        kinds: Agreement on each kind of operator. The last element covers all kinds.
        disagreements: All common entries, with the largest disagreement first.
        only_first: Number of entries of the first table that were not compared: the second table lacks them, or one of
            the two costs is 0.
        only_second: Number of entries of the second table that were not compared, for the same reasons.
    """

    kinds: tuple[KindComparison, ...]
    disagreements: tuple[Disagreement, ...]
    only_first: int
    only_second: int


def compare(first: LatencyTable, second: LatencyTable) -> Comparison:
    """Compare the entries that both tables have.

    Args:
        first: First table.
        second: Second table, of any device and in any unit. Only the order and the ratios of the costs are compared.

    Raises:
        LatencyTableError: The tables have no entry in common.
    """
    common = [entry for entry in first.operators if entry in second.operators]
    # The cost of a candidate may be 0 in a fitted table, and a ratio to 0 is undefined.
    common = [e for e in common if first.operators[e].cost > 0 and second.operators[e].cost > 0]
    if not common:
        raise LatencyTableError(
            f"the tables of {first.device.name} and {second.device.name} have no operator in common: were they made "
            "for different spaces or image sizes?"
        )
    costs = np.array([[t.operators[entry].cost for entry in common] for t in (first, second)])
    ratios = costs[1] / costs[0]
    typical = float(np.median(ratios))
    kinds = [_kind(entry) for entry in common]
    groups = [*dict.fromkeys(kinds), "all"]
    compared = []
    for group in groups:
        mask = np.array([group in (kind, "all") for kind in kinds])
        rank = spearman(costs[0, mask], costs[1, mask]) if mask.sum() > 1 else 0.0
        compared.append(KindComparison(group, int(mask.sum()), rank, float(np.median(ratios[mask]))))
    order = np.argsort(-np.abs(np.log(ratios / typical)))
    worst = [Disagreement(common[i], costs[0, i], costs[1, i], float(ratios[i] / typical)) for i in order]
    return Comparison(
        tuple(compared), tuple(worst), len(first.operators) - len(common), len(second.operators) - len(common)
    )


def _kind(entry: Entry) -> str:
    if isinstance(entry, Choice):
        return f"candidate {entry.candidate}"
    if isinstance(entry, ModuleCall):
        return "module"
    return f"{entry.kind} k{entry.kernel}" if entry.kind == "mbconv" else entry.kind
