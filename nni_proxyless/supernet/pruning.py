"""Permanent removal of improbable paths during a search."""

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
    """Prune all paths below a probability, the least likely first, as long as some network still meets the budget.

    Args:
        gates_by_label: All gates of a supernet by label; changed in place. Each gate keeps at least one path.
        bound: Probability below which a path is pruned.
        costs: Latencies of all candidates. Without them, the budget is ignored.
        budget_ms: Latency budget in milliseconds that at least one remaining network must meet; `None` for no budget.

    Returns:
        For each pruned path a dictionary of `label`, `candidate` and the `probability` that it had.
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
    """Remove the modules that are only on pruned paths, and thereby free their weights.

    Args:
        model: Mutated model space; changed in place.

    Returns:
        Number of parameters that were removed.
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
    """Placeholder for a pruned module. It is never sampled, so it never runs."""


def forget_pruned(model: nn.Module, optimizers: Iterable[optim.Optimizer]) -> None:
    """Remove the parameters that `free_pruned` removed, and their state, from optimizers.

    Args:
        model: Module that contains the remaining parameters.
        optimizers: Optimizers of the model's weights; changed in place.
    """
    left = {id(p) for p in model.parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in [p for p in group["params"] if id(p) not in left]:
                optimizer.state.pop(parameter, None)
            group["params"] = [p for p in group["params"] if id(p) in left]
