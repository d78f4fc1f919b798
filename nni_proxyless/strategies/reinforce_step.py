"""Architecture step of REINFORCE: sampled networks, their rewards and the score-function gradient (section 3.3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..decoding.constraint import Constraint
from ..latency.costs import SpaceCosts
from ..supernet import binary_gates as gates
from ..supernet.binary_gates import PathSample
from ..supernet.constraints import Constraints
from ..supernet.gated import Gate
from .rank_mean import RankMean
from .reinforce import MovingAverage, reward, surrogate


class ReinforceStep:
    """Samples networks, computes the reward score × (ref / latency)^w of each, and computes the surrogate loss.

    Args:
        gates_by_label: All gates of the supernet by label.
        costs: Latencies of all candidates; `None` for a search without latency.
        reference_ms: Reference latency ref, in milliseconds.
        samples: Number of networks that each step samples.
        constraints: Constraints of the space, which all sampled networks satisfy.
        budgets: Further budgets. The reward has a factor (limit / value)^μ for each.

    Attributes:
        baseline: Moving average of the rewards.
    """

    def __init__(
        self,
        gates_by_label: Mapping[str, Gate],
        costs: SpaceCosts | None,
        reference_ms: float,
        samples: int,
        constraints: Constraints,
        budgets: Sequence[Constraint] = (),
    ) -> None:
        self.baseline = MovingAverage()
        self._gates = gates_by_label
        self._costs = costs
        self._reference_ms = reference_ms
        self._samples = samples
        self._constraints = constraints
        self._budgets = budgets

    def loss(
        self,
        score: Callable[[], float],
        latency_weight: float,
        generator: torch.Generator,
        ranks: RankMean,
        weights: Sequence[float] = (),
    ) -> tuple[Tensor, Tensor]:
        """Sample networks, and compute their surrogate loss and mean reward.

        Args:
            score: Function that returns the score of the sampled network on the step's batch; the higher the better.
            latency_weight: Exponent w of the reward.
            generator: Random number generator of the paths.
            ranks: Mean over processes; it averages scores, so that all processes compute the same rewards.
            weights: Exponent μ of each constraint's factor.

        Returns:
            Surrogate loss, a scalar that is differentiable in the architecture parameters, and mean reward, a scalar.
        """
        scores, latencies, sampled, excesses = [], [], [], []
        for _ in range(self._samples):
            self._constraints.draw(self._gates, lambda gate: gate.draw_for_gradient("reinforce", generator))
            sampled.append([gate.sample for gate in self._gates.values()])
            scores.append(score())
            choices = {label: gate.candidates[gate.sample.active] for label, gate in self._gates.items()}
            latencies.append(None if self._costs is None else self._costs.of(choices))
            excesses.append(
                [(c.limit / c.of(choices), weight) for c, weight in zip(self._budgets, weights, strict=True)]
            )
        device = next(iter(self._gates.values())).alpha.device
        known = ranks.of(torch.tensor(scores, dtype=torch.float32, device=device)).tolist()
        if min(known) < max(known):
            for gate in self._gates.values():
                gate.heard = True
        rewards = torch.tensor(
            [
                reward(found, latency, self._reference_ms, latency_weight, further)
                for found, latency, further in zip(known, latencies, excesses, strict=True)
            ],
            device=device,
        )
        likelihoods = torch.stack([self._log_likelihood(paths) for paths in sampled])
        return surrogate(likelihoods, rewards, self.baseline.update(rewards)), rewards.mean()

    def _log_likelihood(self, paths: Sequence[PathSample]) -> Tensor:
        terms = [
            gates.log_likelihood(gate.logits(), path) for gate, path in zip(self._gates.values(), paths, strict=True)
        ]
        return torch.stack(terms).sum()
