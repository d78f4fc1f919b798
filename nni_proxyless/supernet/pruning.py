"""Permanent removal of improbable paths during a search."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from ..decoding.constraint import Constraint
from ..decoding.constraints import can_be_satisfied
from .gated import Gate, GatedLayerChoice, GatedRepeat

_log = logging.getLogger(__name__)


def prune_improbable(
    gates_by_label: Mapping[str, Gate], bound: float, constraints: Sequence[Constraint]
) -> list[dict[str, Any]]:
    """Prune all paths below a probability, the least likely first, as long as some network still meets all budgets.

    Args:
        gates_by_label: All gates of a supernet by label; changed in place. Each gate keeps at least one path.
        bound: Probability below which a path is pruned.
        constraints: Budgets that at least one remaining network must meet.

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
        if constraints:
            left = {name: of.probs().detach().clone() for name, of in gates_by_label.items()}
            left[label][index] = 0.0
            if not can_be_satisfied(left, constraints):
                continue
        gate.prune([index])
        candidate = str(gate.candidates[index])
        pruned.append({"label": label, "candidate": candidate, "probability": p})
        _log.info("pruned %s of %s, whose probability is %.2g", candidate, label, p)
    return pruned


def keep_pruned(gates: Iterable[Gate], before: Iterable[Tensor]) -> None:
    """Set α of pruned paths back to -inf after an optimizer's step, because weight decay turns it to NaN.

    Args:
        gates: All gates; changed in place.
        before: α of each gate before the step, shape (num_candidates,).
    """
    with torch.no_grad():
        for gate, alpha in zip(gates, before, strict=True):
            gate.alpha.masked_fill_(alpha == -torch.inf, -torch.inf)


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
