"""The architecture step of REINFORCE: sampled networks, their rewards, the score-function gradient (section 3.3.2)."""

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
    """Samples networks, rewards each with accuracy × (ref / latency)^w, and gives the surrogate loss.

    Args:
        gates_by_label: All gates of the supernet.
        costs: Latencies of all candidates, or `None` for a search without latency.
        reference_ms: ref, in milliseconds.
        samples: Number of networks in each step.

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
        """The surrogate loss of one batch of networks, and the mean reward.

        Args:
            batch: Images and labels.
            forward: Maps images to logits of shape (batch, classes) with the sampled paths.
            latency_weight: w.
            generator: Source of the sampled paths.
            ranks: Averages accuracies over processes, so that all of them reward alike.

        Returns:
            Two scalars; the first is differentiable in the architecture parameters.
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
