"""Choice of the paths that the weight steps of a search train (paper section 3.2.1, FairNAS, GreedyNAS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..supernet.binary_gates import PathSample
from ..supernet.constraints import Constraints
from ..supernet.gated import Gate
from .arch_settings import ArchSettings

NONE = Constraints()


class WeightPaths:
    """Chooses the path of every gate for each weight step.

    Paths are drawn from the path probabilities, or all paths of a gate take turns. In the last epochs, the finalists
    may take turns instead.

    Args:
        gates_by_label: All gates of the supernet by label.
        arch: Settings of the architecture's training, which say how paths are chosen in each epoch.
        seed: Seed of the random choices. They use a separate generator, so paths do not depend on other random numbers.
        finalists: Function that returns the finalists, the networks that are compared at the end of the search.
        constraints: Constraints of the space, which all sampled networks satisfy.

    Attributes:
        generator: Random number generator of the paths. Architecture steps use it as well.
    """

    def __init__(
        self,
        gates_by_label: Mapping[str, Gate],
        arch: ArchSettings,
        seed: int,
        finalists: Callable[[], Sequence[Mapping[str, Any]]],
        constraints: Constraints = NONE,
    ) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self._gates = gates_by_label
        self._arch = arch
        self._seed = seed
        self._finalists = finalists
        self._constraints = constraints
        self._trained_last: list[list[int]] = []  # for each finalist, the path of every gate

    def share(self, broadcast: Callable[[Any], Any]) -> None:
        """Give all ranks the random choices of rank 0, so that they always sample the same paths.

        Args:
            broadcast: Function that returns rank 0's value on all ranks.
        """
        self._seed = broadcast(self._seed)
        self.generator.set_state(broadcast(self.generator.get_state()))

    def among_finalists(self, epoch: int, epochs: int | None) -> bool:
        """Whether the weight steps of an epoch train only the finalists.

        Args:
            epoch: Number of the epoch, counted from 0.
            epochs: Number of epochs of the whole search; `None` or less than 1 if it is not limited.
        """
        last = self._arch.finalist_epochs
        return last > 0 and epochs is not None and 0 < epochs <= epoch + last

    def draw(self, step: int, epoch: int, epochs: int | None) -> None:
        """Choose the path of every gate for a weight step.

        Args:
            step: Number of weight steps of the search before this one.
            epoch: Number of the epoch, counted from 0.
            epochs: Number of epochs of the whole search.
        """
        in_warmup = epoch < self._arch.warmup_epochs
        if self.among_finalists(epoch, epochs):
            self._draw_finalist(step)
        elif (self._arch.warmup_sampling if in_warmup else self._arch.weight_sampling) == "fair":
            for number, gate in enumerate(self._gates.values()):
                gate.draw_in_turn(step, self._seed + number)
        else:
            self._constraints.draw(self._gates, lambda gate: gate.draw_path(self.generator))

    def draw_for_gradient(self, mode: str) -> None:
        """Draw the paths of every gate for an architecture step; see `Gate.draw_for_gradient`."""
        self._constraints.draw(self._gates, lambda gate: gate.draw_for_gradient(mode, self.generator))

    def _draw_finalist(self, step: int) -> None:
        """Give every gate the path of the finalist whose turn it is. Each round has its own random order.

        The architecture parameters no longer change, so a resumed search finds the same finalists in the same order.
        """
        if not self._trained_last:
            known = [list(gate.candidates) for gate in self._gates.values()]
            self._trained_last = [
                [of.index(choices[label]) for label, of in zip(self._gates, known, strict=True)]
                for choices in self._finalists()
            ]
        round_number, turn = divmod(step, len(self._trained_last))
        order = np.random.default_rng([self._seed, round_number]).permutation(len(self._trained_last))
        for gate, path in zip(self._gates.values(), self._trained_last[int(order[turn])], strict=True):
            gate.sample = PathSample(path)
