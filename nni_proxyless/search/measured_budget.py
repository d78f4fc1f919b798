"""The choice of a network that is within its latency budget when it is measured, not only by the latency table.

A table has an error of a few percent, and the likeliest networks within a budget lie just below it. So some of them
exceed the budget when they are measured. Networks within a lower limit, which leaves room for the error, are then
compared in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ..decoding.budget import must_keep_budget
from ..errors import InputError
from ..files import results_folder
from ..files.reading import read_rows
from ..latency.difference import NOTICEABLE, relative_error
from ..network.architecture import Architecture
from ..strategies.finalist import Finalist
from ..strategies.finalists import with_doubts
from .epoch_callback import Record, write_finalists
from .prepared import Prepared
from .shared_search import own_budget_ms, shared_folder, within_own_budgets
from .shared_weights import SharedWeightComparison

_log = logging.getLogger(__name__)
MOST_COMPARISONS = 3  # after the first one
_TOLERANCE = 1e-9  # relative; limits are rounded when they are written

Found = tuple[Architecture, nn.Module, Record]


def lower_limit_ms(limit_ms: float, predicted_ms: float, measured_ms: float) -> float | None:
    """Return the limit of predicted latencies under which a network is within the budget if the table errs alike.

    Args:
        limit_ms: Latency budget in milliseconds.
        predicted_ms: Latency of a network by the table, in milliseconds.
        measured_ms: Measured latency of the network, in milliseconds.

    Returns:
        Lower limit in milliseconds. `None` if the measured latency is within the budget, or differs noticeably from the
        predicted one, as by a bad table or on a busy machine. No limit helps then.
    """
    if measured_ms <= limit_ms * (1 + _TOLERANCE) or -relative_error(predicted_ms, measured_ms) > NOTICEABLE:
        return None
    return limit_ms * predicted_ms / measured_ms


def keep_measured_budget(
    prepared: Prepared, output: Path, found: Found, measure: Callable[[Architecture], float | None]
) -> tuple[Found, float | None]:
    """Measure the network of a search. If it exceeds its latency budget, compare networks that leave room.

    Networks are compared as by `nni-proxyless decode --finalists` with a lower latency budget. `finalists.csv` then has
    those that were compared last. A search whose budget is only the objective's reference keeps its network, and so
    does a random search.

    Args:
        prepared: Inputs of the search.
        output: Folder of the search, with its checkpoint.
        found: Architecture, network with the supernet's weights, and record of the search.
        measure: Function that returns the latency of an architecture in milliseconds; `None` if nothing measures.

    Returns:
        The same for the network that is within the budget, or that exceeds it least, and its measured latency in
        milliseconds. If it is another network, a warning in the architecture says so.
    """
    measured = measure(found[0])
    recipe, budget_ms = prepared.recipe, own_budget_ms(prepared)
    keeps = must_keep_budget(recipe.to_dict()) and recipe.strategy != "random"
    if measured is None or budget_ms is None or not keeps:
        return found, measured
    tried = [_Tried(found, measured)]
    comparison: SharedWeightComparison | None = None
    while len(tried) <= MOST_COMPARISONS:
        lower = lower_limit_ms(budget_ms, tried[-1].predicted_ms, tried[-1].measured_ms)
        if lower is None:
            break
        _log.info(
            "%s: predicted %.4g ms, measured %.4g ms, budget %.4g ms; comparing networks predicted within %.4g ms",
            recipe.target, tried[-1].predicted_ms, tried[-1].measured_ms, budget_ms, lower,
        )  # fmt: skip
        try:
            comparison = comparison or _comparison(prepared, output)
            another, finalists = _found_within(lower, budget_ms, found, comparison, prepared)
        except InputError as reason:  # no network is as fast, or the checkpoint of a user's strategy is another one
            _log.info("%s: %s", recipe.target, reason)
            break
        again = measure(another[0])
        assert again is not None
        tried.append(_Tried(another, again, finalists))
    best = min(reversed(tried), key=lambda one: max(one.measured_ms, budget_ms))
    write_finalists(output, prepared.spec, with_doubts(best.finalists, prepared.table, budget_ms))
    return best.found, best.measured_ms


@dataclass(frozen=True)
class _Tried:
    """A network that was measured, and the finalists from which it was chosen, if others than those of the search."""

    found: Found
    measured_ms: float
    finalists: Sequence[Finalist] = ()

    @property
    def predicted_ms(self) -> float:
        assert self.found[0].predicted_latency_ms is not None
        return self.found[0].predicted_latency_ms


def _found_within(
    limit_ms: float, budget_ms: float, found: Found, comparison: SharedWeightComparison, prepared: Prepared
) -> tuple[Found, list[Finalist]]:
    """Choose a network within a lower limit, and describe it like that of the search.

    Raises:
        InputError: No network is within the limit and the other budgets.
    """
    first, _, record = found
    distribution, _ = within_own_budgets(prepared, comparison.found)
    other, finalists, network = comparison.compare(distribution, prepared.recipe.target, limit_ms)
    assert other.predicted_latency_ms is not None
    values = {constraint.name: constraint.of(other.choices) for constraint in distribution.constraints}
    text = (
        f"the network that was first chosen within the budget of {budget_ms:.4g} ms exceeded it when it was measured, "
        f"so this network was chosen within {limit_ms:.4g} ms according to the table"
    )
    architecture = replace(
        first,
        choices=other.choices,
        predicted_latency_ms=other.predicted_latency_ms,
        budgets={
            name: {**numbers, "value": values.get(name, other.predicted_latency_ms)}
            for name, numbers in first.budgets.items()
        },
        warnings=(*first.warnings, text),
    )
    record = replace(
        record,
        default=other.metrics["default"],
        latency_ms=other.predicted_latency_ms,
        balanced_accuracy=other.metrics.get("balanced_accuracy"),
    )
    return (architecture, network, record), finalists


def _comparison(prepared: Prepared, output: Path) -> SharedWeightComparison:
    """Load the search's weights, to compare as many networks as the search has compared."""
    recipe, compared = prepared.recipe, output / results_folder.FINALISTS
    return SharedWeightComparison(
        shared_folder(prepared) if recipe.share_search else output,
        len(read_rows(compared, "finalists", InputError)) if compared.is_file() else 1,
        own=True,
        keep=recipe.share_search,
        data=(prepared.spec, prepared.splits),
    )
