"""Architecture step of REINFORCE: sampled networks, their rewards and the score-function gradient (section 3.3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..latency.costs import SpaceCosts
from ..supernet import gates
from ..supernet.gated import Gate
from ..supernet.gates import PathSample
from .rank_mean import RankMean
from .reinforce import MovingAverage, reward, surrogate, top1


class ReinforceStep:
    """Samples networks, computes the reward accuracy × (ref / latency)^w of each, and computes the surrogate loss.

    Args:
        gates_by_label: All gates of the supernet by label.
        costs: Latencies of all candidates; `None` for a search without latency.
        reference_ms: Reference latency ref, in milliseconds.
        samples: Number of networks that each step samples.

    Attributes:
        baseline: Moving average of the rewards.
    """

    def __init__(
        self, gates_by_label: Mapping[str, Gate], costs: SpaceCosts | None, reference_ms: float, samples: int
    ) -> None:
        self.baseline = MovingAverage()
        self._gates = gates_by_label
        self._costs = costs
        self._reference_ms = reference_ms
        self._samples = samples

    def loss(
        self,
        batch: Any,
        forward: Callable[[Any], Tensor],
        latency_weight: float,
        generator: torch.Generator,
        ranks: RankMean,
    ) -> tuple[Tensor, Tensor]:
        """Sample networks, and compute their surrogate loss and mean reward.

        Args:
            batch: Images and labels.
            forward: Function that maps images to logits of shape (batch, classes) with the sampled paths.
            latency_weight: Exponent w of the reward.
            generator: Random number generator of the paths.
            ranks: Mean over processes; it averages accuracies, so that all processes compute the same rewards.

        Returns:
            Surrogate loss, a scalar that is differentiable in the architecture parameters, and mean reward, a scalar.
        """
        inputs, labels = batch
        accuracies, latencies, sampled = [], [], []
        for _ in range(self._samples):
            for gate in self._gates.values():
                gate.draw_for_gradient("reinforce", generator)
            sampled.append([gate.sample for gate in self._gates.values()])
            with torch.no_grad():
                outputs = forward(inputs)
            accuracies.append(top1(outputs, labels))
            choices = {label: gate.candidates[gate.sample.active] for label, gate in self._gates.items()}
            latencies.append(None if self._costs is None else self._costs.of(choices))
        device = outputs.device
        known = ranks.of(torch.tensor(accuracies, dtype=torch.float32, device=device)).tolist()
        rewards = torch.tensor(
            [
                reward(a, latency, self._reference_ms, latency_weight)
                for a, latency in zip(known, latencies, strict=True)
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
