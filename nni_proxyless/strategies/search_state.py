"""What checkpoints of a search hold beside weights and optimizers: plain data and tensors only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..decoding.checkpoint import CHECKPOINT_SCHEMA
from ..supernet.gated import Gate
from .arch_schedule import ArchSchedule
from .reinforce import MovingAverage
from .weight_paths import WeightPaths


def search_state(
    gates_by_label: Mapping[str, Gate],
    paths: WeightPaths,
    schedule: ArchSchedule,
    baseline: MovingAverage,
    pruned: list[dict[str, Any]],
) -> dict[str, Any]:
    """The state of a search, as its checkpoint holds it.

    Args:
        gates_by_label: All gates of the supernet.
        paths: The path sampler.
        schedule: The schedule of rate, temperature and target.
        baseline: The moving average of REINFORCE's rewards.
        pruned: What was pruned: epoch, label, candidate, and the probability it had.
    """
    return {
        "schema": CHECKPOINT_SCHEMA,
        "alpha": {label: gate.alpha.detach().cpu().clone() for label, gate in gates_by_label.items()},
        "candidates": {label: list(gate.candidates) for label, gate in gates_by_label.items()},
        "path_sampler": paths.generator.get_state(),
        "pruned": pruned,
        "baseline": baseline.state_dict(),
        **schedule.state_dict(),
    }


def load_search_state(
    state: Mapping[str, Any],
    gates_by_label: Mapping[str, Gate],
    paths: WeightPaths,
    schedule: ArchSchedule,
    baseline: MovingAverage,
) -> None:
    """Take up what `search_state` gave, in place; see there."""
    paths.generator.set_state(state["path_sampler"].cpu())
    baseline.load_state_dict(state["baseline"])
    schedule.load_state_dict(state)
    with torch.no_grad():
        for label, gate in gates_by_label.items():
            gate.alpha.copy_(state["alpha"][label])
