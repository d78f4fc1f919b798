"""REINFORCE for the architecture (paper section 3.3.2): rewards, baseline, gradient. Pure functions of tensors.

J(α) = E_g[R(N_g)], and ∇J ≈ 1/M Σ_i (R(N_i) - b) ∇ log p(g_i) for M sampled networks N_i, with the moving average b of
rewards as baseline. R need not be differentiable: accuracy and latency are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def reward(accuracy: float, latency_ms: float | None, reference_ms: float, weight: float) -> float:
    """Accuracy × (ref / latency)^w.

    Args:
        accuracy: Accuracy of the sampled network on the batch, between 0 and 1.
        latency_ms: Latency of the sampled network by the table, in milliseconds; `None` for a search without latency.
        reference_ms: ref, in milliseconds.
        weight: w.
    """
    if latency_ms is None:
        return accuracy
    return float(accuracy * (reference_ms / latency_ms) ** weight)


def surrogate(log_likelihoods: Tensor, rewards: Tensor, baseline: float) -> Tensor:
    """-1/M Σ_i (R_i - b) log p(g_i): its gradient is that of -J.

    Args:
        log_likelihoods: log p of each sampled network, shape (M,), differentiable.
        rewards: R of each sampled network, shape (M,).
        baseline: b, which changes the variance of the gradient and not its expectation.

    Returns:
        A scalar.
    """
    return -((rewards - baseline) * log_likelihoods).mean()


class MovingAverage:
    """Moving average of rewards, which begins at the mean of the first batch.

    Args:
        decay: Weight of the old average, between 0 and 1.

    Attributes:
        value: The average, `None` before the first batch.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self.value: float | None = None

    def update(self, rewards: Tensor) -> float:
        """Update the average with the rewards of a batch of networks, shape (M,).

        Returns:
            The baseline for this batch: the average before it, since a baseline that contains the batch would bias the
            gradient. For the first batch it is the batch's own mean.
        """
        mean = float(rewards.mean())
        before = mean if self.value is None else self.value
        self.value = mean if self.value is None else self.decay * self.value + (1 - self.decay) * mean
        return before

    def state_dict(self) -> dict[str, float | None]:
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        self.value = state["value"]


def top1(logits: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy of a batch, between 0 and 1; logits of shape (batch, classes), labels of shape (batch,)."""
    return float((logits.argmax(1) == labels).to(torch.float32).mean())
