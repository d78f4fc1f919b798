"""REINFORCE for the architecture (paper section 3.3.2): rewards, their baseline, and the gradient.

The objective is the expected reward J(α) = E_g[R(N_g)]. Its gradient is estimated from M sampled networks N_i as
∇J ≈ 1/M Σ_i (R(N_i) - b) ∇ log p(g_i), where the baseline b is a moving average of the rewards. R need not be
differentiable, so it is computed from the accuracy and the latency themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def reward(
    score: float,
    latency_ms: float | None,
    reference_ms: float,
    weight: float,
    further: Sequence[tuple[float, float]] = (),
) -> float:
    """Compute the reward R = score × (ref / latency)^w, where the score is the accuracy in the paper.

    Each further budget multiplies it by another factor (limit / value)^μ.

    For a negative score, such as a loss with its sign reversed, the exponent is -w, so that the reward always falls
    with the latency.

    Args:
        score: Score of the sampled network on the batch; the higher the better.
        latency_ms: Latency of the sampled network, predicted by the table, in milliseconds; `None` for a search without
            latency.
        reference_ms: Reference latency ref, in milliseconds.
        weight: Exponent w.
        further: limit / value and exponent μ of each further budget.
    """
    factor = 1.0 if latency_ms is None else (reference_ms / latency_ms) ** weight
    for part, exponent in further:
        factor *= part**exponent
    return float(score * factor if score >= 0 else score / factor)


def surrogate(log_likelihoods: Tensor, rewards: Tensor, baseline: float) -> Tensor:
    """Compute the surrogate loss -1/M Σ_i (R_i - b) log p(g_i), whose gradient estimates that of -J.

    Args:
        log_likelihoods: Log-probability log p of each sampled network, shape (M,), differentiable.
        rewards: Reward R of each sampled network, shape (M,).
        baseline: Baseline b, which changes the variance of the gradient, but not its expectation.

    Returns:
        Surrogate loss, a scalar.
    """
    return -((rewards - baseline) * log_likelihoods).mean()


class MovingAverage:
    """Moving average of rewards, which starts at the mean of the first batch.

    Args:
        decay: Weight of the old average, between 0 and 1.

    Attributes:
        value: Current average; `None` before the first batch.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self.value: float | None = None

    def update(self, rewards: Tensor) -> float:
        """Update the average with the rewards of a batch of networks, shape (M,).

        Returns:
            Baseline for this batch. It is the average before the batch, because a baseline that contains the batch
            would bias the gradient. For the first batch, it is the batch's own mean.
        """
        mean = float(rewards.mean())
        before = mean if self.value is None else self.value
        self.value = mean if self.value is None else self.decay * self.value + (1 - self.decay) * mean
        return before

    def state_dict(self) -> dict[str, float | None]:
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        self.value = state["value"]
