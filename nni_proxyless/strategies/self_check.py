"""Checks of a search: before its first step whether it can learn, and after its epochs whether it has learnt."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ..errors import RunError
from ..supernet.constraints import Constraints
from ..supernet.freezing import WeightFreezer
from ..supernet.gate import Gate, UnlikePathsError, probing
from ..supernet.gated import GatedModule
from ..supernet.regions import run_all_paths
from ..training.memory_format import ChannelsLast
from .arch_schedule import ArchSchedule
from .arch_settings import ArchSettings
from .evaluator_metric import BatchScore, collect_logged, copy_of
from .evaluator_step import loss_of
from .search_warnings import differing_ranks, ended_early, equal_rewards, nothing_learnt, silent_choices, unknown_length

_log = logging.getLogger(__name__)


class SelfCheck:
    """Checks of one search.

    Args:
        gates_by_label: All gates of the supernet by label.
        arch: Settings of the architecture's training.
        schedule: Schedule of the search, which counts its steps.
        score: Score of REINFORCE's networks.
        constraints: Constraints of the space.

    Attributes:
        is_due: Whether `before_training` has not run yet.
    """

    def __init__(
        self,
        gates_by_label: Mapping[str, Gate],
        arch: ArchSettings,
        schedule: ArchSchedule,
        score: BatchScore,
        constraints: Constraints,
    ) -> None:
        self.is_due = True
        self._gates = gates_by_label
        self._arch = arch
        self._schedule = schedule
        self._score = score
        self._constraints = constraints
        self._gated: set[str] = set()
        self._looked = False
        self._samples_networks = arch.arch_gradient == "reinforce"

    def before_training(
        self, module: Any, batch: Any, batch_idx: int, freezer: WeightFreezer, channels_last: ChannelsLast | None = None
    ) -> None:
        """Run all candidates once on a batch, to check that they can be exchanged.

        Nothing changes, except that a network that cannot run in channels_last gets back its memory format.

        Args:
            module: Lightning module of the evaluator.
            batch: Batch that trains the architecture.
            batch_idx: Number of the batch, counted from 0.
            freezer: Freezer of the supernet's weights.
            channels_last: Convolutions in channels_last, if their memory format was changed.

        Raises:
            SpaceError: The outputs of two candidates cannot be exchanged, or no gradient can reach one of them.
            InputError: The evaluator yields nothing that REINFORCE could use as a reward.
        """
        self.is_due = False
        self._gated = {gate.label for m in module.modules() if isinstance(m, GatedModule) for gate in m.own_gates()}

        def run() -> Tensor:
            return loss_of(module.training_step(copy_of(batch), batch_idx))

        def check() -> None:
            if self._samples_networks:  # it never compares outputs
                generator = torch.Generator().manual_seed(0)
                self._constraints.draw(self._gates, lambda gate: gate.draw_path(generator))
                self._score.of(batch, batch_idx)
            else:
                with collect_logged(module):
                    run_all_paths(module.model, self._gates.values(), run)

        with isolate_rng(), freezer.frozen():
            if channels_last is None or not channels_last.weights:
                check()
                return
            try:
                check()
                if self._samples_networks:
                    with collect_logged(module), probing(self._gates.values()):
                        run()
            except (RuntimeError, UnlikePathsError) as reason:
                channels_last.revert()
                _log.info("searching without channels_last: %s", str(reason).splitlines()[0])
                check()

    def after_epoch(self, trainer: Any, *, last: bool) -> list[str]:
        """Check a search for choices without a gradient, ranks that differ, and an unexpected length.

        Args:
            trainer: Lightning trainer of the running fit.
            last: Whether the search ends with this epoch.

        Returns:
            Warnings.

        Raises:
            RunError: The search has ended, and the loss had no gradient for any choice.
        """
        schedule, steps = self._schedule, self._schedule.step
        found = [differing_ranks([gate.alpha for gate in self._gates.values()], trainer.world_size)]
        if schedule.steps is None:
            found.append(unknown_length(schedule.sharpens))
        undecided = any(len(gate.kept) > 1 for gate in self._gates.values())
        if last:
            deaf = undecided and not any(gate.heard for gate in self._gates.values())
            deaf = deaf and (steps == 0 or self._gated == set(self._gates))  # a user's own hook may use a gate directly
            if deaf and (steps == 0 or not self._samples_networks):
                raise RunError(nothing_learnt(steps, self._arch.warmup_epochs, trainer.current_epoch))
            found.append(self._silence("in the whole search"))
            found.append(ended_early(steps, schedule.steps, schedule.temperature, schedule.sharpens))
        elif steps > 0 and not self._looked:
            self._looked = True
            found.append(self._silence("in the first epoch that trains the architecture", asked=True))
        return [text for text in found if text is not None]

    def _silence(self, when: str, *, asked: bool = False) -> str | None:
        if not self._samples_networks:
            own = {label: gate for label, gate in self._gates.items() if label in self._gated}
            return silent_choices(own, when, asked=asked)
        return None if any(gate.heard for gate in self._gates.values()) else equal_rewards(when)
