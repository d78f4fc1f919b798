"""Warnings of a search about its own result, which may be wrong although the search has ended normally."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import Tensor

from ..latency.doubtful import is_doubtful
from ..latency.memory import PEAK_MEMORY

if TYPE_CHECKING:
    from ..decoding.constraint import Constraint
    from ..network.space_spec import SpaceSpec
    from ..supernet.gated import Gate
    from .stated_budgets import StatedBudgets

_log = logging.getLogger(__name__)
_NAMED = 5


class SearchWarnings(list[str]):
    """List of warnings. Each one is also logged when it is added, and added only once."""

    def add(self, text: str) -> None:
        """Add a warning, and log it."""
        if text not in self:
            self.append(text)
            _log.warning("%s", text)


def budget_without_effect(budget_ms: float, largest_ms: float) -> str | None:
    """Return a warning if every network of the space is within the budget."""
    if budget_ms < largest_ms:
        return None
    return (
        f"the budget of {budget_ms:.4g} ms has no effect: the slowest network of the space takes {largest_ms:.4g} ms; "
        "give a lower budget, in milliseconds"
    )


def bounded_memory(stated: StatedBudgets, spec: SpaceSpec | None) -> str | None:
    """Return a warning if there is a budget of memory, and the memory of the space's networks is an upper bound.

    Args:
        stated: Budgets of the search.
        spec: Description of the space, from which its memory is known exactly; `None` without one.
    """
    table = stated.counts
    if spec is not None or table is None or table.composition is None or table.composition.memory is None:
        return None
    asked = any(limit.name == PEAK_MEMORY for limit in stated.limits)
    return table.composition.memory.warning if asked else None


def constraints_without_effect(constraints: Iterable[Constraint]) -> list[str]:
    """Return a warning for each constraint that every network of the space is within."""
    return [
        f"the budget {constraint.name} <= {constraint.limit:g} changes nothing: the largest network has "
        f"{constraint.largest:g}"
        for constraint in constraints
        if constraint.holds(constraint.largest)
    ]


def silent_choices(gates_by_label: Mapping[str, Gate], when: str, *, asked: bool = False) -> str | None:
    """Return a warning about the choices in whose gates the loss has had no gradient.

    Args:
        gates_by_label: All gates of the supernet by label. Those with a single path are ignored.
        when: Period of the search, as in "in the first epoch that trains the architecture".
        asked: Whether to ignore choices that have not been part of a graph of the loss yet, such as those inside a
            candidate that was never active.
    """
    silent = [
        label
        for label, gate in gates_by_label.items()
        if not gate.heard and len(gate.kept) > 1 and (gate.asked or not asked)
    ]
    if not silent:
        return None
    return (
        f"the loss had no gradient for {_listed(silent, 'choice')} {when}, so nothing was learnt about {_it(silent)}; "
        "check that the output of every candidate reaches the loss"
    )


def equal_rewards(when: str) -> str:
    """Return the warning of a search by rewards in which all sampled networks had the same score.

    Args:
        when: Period of the search, as in "in the whole search".
    """
    return (
        f"all networks that were sampled had the same score {when}, so nothing was learnt; use a metric that "
        "tells networks apart on one batch, larger batches, or arch_gradient full"
    )


def nothing_learnt(steps: int, warmup_epochs: int, epoch: int) -> str:
    """Return the message of a search that ends without having learnt anything about any choice.

    Args:
        steps: Number of architecture steps that were taken.
        warmup_epochs: Number of epochs that train only the weights.
        epoch: Number of the last epoch, counted from 0.
    """
    if steps == 0 and epoch < warmup_epochs:
        return (
            f"the search has ended in its warm-up of {warmup_epochs} epochs, so no architecture was searched; set "
            "max_epochs above warmup_epochs"
        )
    if steps == 0:
        return "the search has ended without a step of the architecture; check that the validation loader has batches"
    return (
        f"the loss had no gradient for any choice in {steps} architecture steps, so nothing was learnt; check that the "
        "output of every candidate reaches the loss"
    )


def unmoved_choices(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> str | None:
    """Return a warning about the choices whose probabilities have not changed at all.

    Args:
        before: Path probabilities of each label at the start.
        now: Path probabilities of each label at the end.
    """
    unmoved = [label for label, probs in now.items() if len(probs) > 1 and torch.equal(before[label], probs)]
    if not unmoved:
        return None
    return (
        f"the probabilities of {_listed(unmoved, 'choice')} did not change, so nothing was learnt about {_it(unmoved)}"
    )


def equal_scores(scores: Sequence[float]) -> str | None:
    """Return a warning if finalists cannot be told apart by their scores."""
    finite = [score for score in scores if math.isfinite(score)]
    if scores and not finite:
        return (
            f"the scores of all {len(scores)} finalists are infinite or not numbers, so the most likely one was "
            "exported; check the metric of validation_step"
        )
    if len(scores) < 2 or len(finite) < len(scores) or min(scores) < max(scores):
        return None
    return (
        f"all {len(scores)} finalists have the same score, {scores[0]:.4g}, so the shared weights could not tell them "
        "apart; train longer, or give more validation data"
    )


def doubtful_latencies(above: Sequence[float | None], chosen: int, budget_ms: float) -> str | None:
    """Return a warning if the latency of finalists may be on either side of the budget.

    Args:
        above: Probability of each finalist to exceed the budget; `None` if it is not known.
        chosen: Position of the finalist that is exported.
        budget_ms: Latency budget in milliseconds.
    """
    found = [i for i, p in enumerate(above) if p is not None and is_doubtful(p)]
    if not found:
        return None
    exported = " (the exported network is one of them)" if chosen in found else ""
    return (
        f"the table cannot tell whether {len(found)} of {len(above)} finalists are within the budget of "
        f"{budget_ms:.4g} ms{exported}; time them: column above_budget of finalists.csv and strategy.compared list them"
    )


def ended_early(steps: int, planned: int | None, temperature: float, sharpens: bool) -> str | None:
    """Return a warning if a search has ended long before the number of architecture steps for which it was planned."""
    if planned is None or steps >= 0.9 * planned:
        return None
    softmax = f", at a temperature of {temperature:.2g}" if sharpens else ""
    return (
        f"the search ended after {steps} of {planned} planned architecture steps{softmax}, so its probabilities may "
        "still be undecided; set max_epochs (or max_steps) of the Trainer to the length that the search can have"
    )


def unknown_length(sharpens: bool) -> str:
    """Return the warning of a search whose number of steps is not known when it starts."""
    lost = "the softmax temperature does not fall, and " if sharpens else ""
    return (
        f"the length of the search is not known, so {lost}the architecture's learning rate and budget are set for "
        "10000 steps; set max_epochs or max_steps of the Trainer, and give the training loader a length"
    )


def unwatched_monitors(callbacks: Iterable[Any], known: Mapping[str, Any]) -> str | None:
    """Return a warning about callbacks that wait for a metric that the search does not log.

    Args:
        callbacks: Callbacks of the trainer, such as ModelCheckpoint and EarlyStopping.
        known: Metrics that were logged in the first epoch, by name.
    """
    waiting = {c.monitor: type(c).__name__ for c in callbacks if isinstance(getattr(c, "monitor", None), str)}
    missing = [f"{name}('{monitor}')" for monitor, name in waiting.items() if monitor not in known]
    if not missing:
        return None
    return (
        f"{', '.join(missing)} does nothing: validation_step does not run during a search; monitor one of "
        f"{', '.join(sorted(name for name in known if not name.startswith('prob/'))) or 'the metrics that you log'}"
    )


def differing_ranks(parameters: Sequence[Tensor], ranks: int) -> str | None:
    """Return a warning if the architecture parameters are not the same on all ranks. All ranks must call this.

    Args:
        parameters: Architecture parameters of this rank.
        ranks: Number of ranks.
    """
    if ranks < 2:
        return None
    mine = torch.cat([p.detach().flatten() for p in parameters]).nan_to_num(neginf=-math.pi)
    least, most = mine.clone(), mine.clone()
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    if torch.equal(least, most):
        return None
    return f"the architecture parameters differ between the {ranks} ranks, so each rank has searched independently"


def _listed(labels: Sequence[str], noun: str) -> str:
    named = ", ".join(f"'{label}'" for label in labels[:_NAMED])
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{noun}{'s' if len(labels) > 1 else ''} {named}{more}"


def _it(labels: Sequence[str]) -> str:
    return "them" if len(labels) > 1 else "it"
