"""Two tables of the same operators, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LatencyTableError
from .arrays import spearman
from .entries import Choice, Entry, ModuleCall
from .table import LatencyTable


@dataclass(frozen=True)
class KindComparison:
    """How two tables agree on one kind of operator.

    Attributes:
        kind: Kind and kernel, as in `mbconv k5`, or `all`.
        operators: How many both have.
        spearman: Rank correlation of their costs; 0 for fewer than two.
        ratio: Median of the second table's cost over the first's.
    """

    kind: str
    operators: int
    spearman: float
    ratio: float


@dataclass(frozen=True)
class Disagreement:
    """An operator, and by what factor the second table differs from what the first leads one to expect."""

    entry: Entry
    first: float
    second: float
    factor: float


@dataclass(frozen=True)
class Comparison:
    """Two tables compared.

    Attributes:
        kinds: By kind of operator; the last is all of them.
        disagreements: All common entries, the largest disagreement first.
        only_first: Entries that the second table lacks.
        only_second: Entries that the first table lacks.
    """

    kinds: tuple[KindComparison, ...]
    disagreements: tuple[Disagreement, ...]
    only_first: int
    only_second: int


def compare(first: LatencyTable, second: LatencyTable) -> Comparison:
    """Compare the entries that both tables have.

    Args:
        first: A table.
        second: Another one, of whatever device; only its order and proportions matter.

    Raises:
        LatencyTableError: They have no entry in common.
    """
    common = [entry for entry in first.operators if entry in second.operators]
    # What a candidate adds may be 0 in a fitted table; there is no ratio to that.
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
