"""State of a search in its checkpoint, except weights and optimizers: plain data and tensors only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..decoding.checkpoint import CHECKPOINT_SCHEMA
from ..errors import InputError
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
    space: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the state of a search for its checkpoint.

    Args:
        gates_by_label: All gates of the supernet by label.
        paths: Path sampler.
        schedule: Schedule of learning rate, temperature and target latency.
        baseline: Moving average of REINFORCE's rewards.
        pruned: Pruned paths, each with epoch, label, candidate and the probability that it had.
        space: Description of the space (`SpaceSpec.to_dict`); `None` if the space does not describe its operators.
    """
    return {
        "schema": CHECKPOINT_SCHEMA,
        "space": space,
        "alpha": {label: gate.alpha.detach().cpu().clone() for label, gate in gates_by_label.items()},
        "candidates": {label: list(gate.candidates) for label, gate in gates_by_label.items()},
        "path_sampler": paths.generator.get_state(),
        "pruned": pruned,
        "heard": {label: gate.heard for label, gate in gates_by_label.items()},
        "baseline": baseline.state_dict(),
        **schedule.state_dict(),
    }


def check_candidates(state: Mapping[str, Any], candidates: Mapping[str, Sequence[Any]]) -> None:
    """Check that a checkpoint is that of a search in the same space, with candidates in the same order.

    Probabilities are stored by the position of the candidates, so another order would give them to other candidates.

    Args:
        state: Part of the checkpoint that has the names of all candidates.
        candidates: Mapping from labels to the candidates of the present search.

    Raises:
        InputError: The candidates differ. The message names the first such label.
    """
    saved = {label: [str(name) for name in names] for label, names in state.get("candidates", {}).items()}
    own = {label: [str(name) for name in names] for label, names in candidates.items()}
    for label in [*own, *saved] if saved else ():
        if saved.get(label) != own.get(label):
            raise InputError(
                f"the checkpoint is of another model space: for choice '{label}' it has "
                f"{saved.get(label, 'nothing')}, and this space has {own.get(label, 'nothing')}; start without it"
            )


def load_search_state(
    state: Mapping[str, Any],
    gates_by_label: Mapping[str, Gate],
    paths: WeightPaths,
    schedule: ArchSchedule,
    baseline: MovingAverage,
) -> None:
    """Restore the state that `search_state` returned, in place; see there for the arguments."""
    check_candidates(state, {label: gate.candidates for label, gate in gates_by_label.items()})
    paths.generator.set_state(state["path_sampler"].cpu())
    baseline.load_state_dict(state["baseline"])
    schedule.load_state_dict(state)
    heard = state.get("heard", {})  # version 0.1 did not save it
    with torch.no_grad():
        for label, gate in gates_by_label.items():
            gate.heard = heard.get(label, True)
            gate.alpha.copy_(state["alpha"][label])
