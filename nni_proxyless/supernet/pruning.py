"""Paths that are hardly ever drawn, removed for good in the course of a search."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn, optim

from ..latency.costs import SpaceCosts
from .gated import Gate, GatedLayerChoice, GatedRepeat

_log = logging.getLogger(__name__)


def prune_improbable(
    gates_by_label: Mapping[str, Gate], bound: float, costs: SpaceCosts | None, budget_ms: float | None
) -> list[dict[str, Any]]:
    """Remove the paths below a probability, the least likely first, as long as the budget can be met.

    Args:
        gates_by_label: All gates of a supernet; changed in place. Each keeps one path at least.
        bound: The probability.
        costs: Latencies of all candidates.
        budget_ms: What some network has to be able to keep, in milliseconds.

    Returns:
        What was pruned: label, candidate, and the probability it had.
    """
    by_probability = sorted(
        (float(p), label, index)
        for label, gate in gates_by_label.items()
        for index, p in enumerate(gate.probs().tolist())
        if index in gate.kept
    )
    pruned: list[dict[str, Any]] = []
    for p, label, index in by_probability:
        gate = gates_by_label[label]
        if p >= bound or len(gate.kept) == 1:
            continue
        if costs is not None and budget_ms is not None:
            kept = {name: [i for i in of.kept if (name, i) != (label, index)] for name, of in gates_by_label.items()}
            if costs.fixed + sum(min(costs.layers[name][i] for i in of) for name, of in kept.items()) > budget_ms:
                continue
        gate.prune([index])
        candidate = str(gate.candidates[index])
        pruned.append({"label": label, "candidate": candidate, "probability": p})
        _log.info("pruned %s of %s, whose probability is %.2g", candidate, label, p)
    return pruned


def free_pruned(model: nn.Module) -> int:
    """Let go of the weights that no path of any gate leads to any more.

    Args:
        model: A mutated model space; changed in place.

    Returns:
        How many parameters were let go.
    """
    before = sum(p.numel() for p in model.parameters())
    for module in list(model.modules()):
        if isinstance(module, GatedLayerChoice):
            for index in set(range(len(module.names))) - set(module._gate.kept):
                module[module.names[index]] = _Pruned()
        elif isinstance(module, GatedRepeat):
            deepest = max(module._depths[index] for index in module._gate.kept)
            for depth in range(deepest, len(module.blocks)):
                module.blocks[depth] = _Pruned()
    return before - sum(p.numel() for p in model.parameters())


class _Pruned(nn.Module):
    """Stands where a pruned candidate was. No sample has it, so nothing ever runs it."""


def forget_pruned(model: nn.Module, optimizers: Iterable[optim.Optimizer]) -> None:
    """Let optimizers forget the parameters that `free_pruned` let go, and what they remember of them.

    Args:
        model: Holds the parameters that are left.
        optimizers: Those of its weights.
    """
    left = {id(p) for p in model.parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in [p for p in group["params"] if id(p) not in left]:
                optimizer.state.pop(parameter, None)
            group["params"] = [p for p in group["params"] if id(p) in left]
