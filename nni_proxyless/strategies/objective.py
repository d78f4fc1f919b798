"""Objectives that combine the loss and the expected latency in one number. All are functions of tensors.

`strategies.search_objective` applies one of them to a supernet in an architecture step.

| symbol | here | meaning |
|---|---|---|
| CE | `loss` | cross-entropy (or another loss) of the sampled network, a scalar |
| E | `expected_latency_ms` | expected latency E[latency] in milliseconds, a scalar |
| ref, T | `reference_ms` | reference latency, or latency budget T, in milliseconds |
| λ, b, μ | `weight` | weight of the latency |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from ..errors import InputError, unknown_name

Objective = Callable[[Tensor, Tensor, float, float], Tensor]


def add_linear(loss: Tensor, expected_latency_ms: Tensor, reference_ms: float, weight: float) -> Tensor:
    """CE + λ (E / ref - 1), which is linear in the expected latency (paper eq. 7, up to a constant)."""
    return loss + weight * (expected_latency_ms / reference_ms - 1.0)


def mul_log(loss: Tensor, expected_latency_ms: Tensor, reference_ms: float, weight: float) -> Tensor:
    """CE · (log E / log ref)^b, the objective of the paper's released code, with latencies in milliseconds.

    Raises:
        InputError: The expected latency or the reference is not above 1 ms, so its logarithm is not positive.
    """
    if reference_ms <= 1.0 or float(expected_latency_ms.detach()) <= 1.0:
        raise InputError(
            f"objective mul_log needs latencies above 1 ms, got {float(expected_latency_ms.detach()):.4g} ms with "
            f"reference {reference_ms:.4g} ms; use add_linear for networks this fast"
        )
    return loss * (expected_latency_ms.log() / math.log(reference_ms)) ** weight


def budget(loss: Tensor, expected_latency_ms: Tensor, reference_ms: float, weight: float) -> Tensor:
    """CE + μ (E / T - 1), the Lagrangian of "minimise CE subject to E ≤ T". `BudgetMultiplier` adjusts μ."""
    return add_linear(loss, expected_latency_ms, reference_ms, weight)


OBJECTIVES: dict[str, Objective] = {"add_linear": add_linear, "mul_log": mul_log, "budget": budget}


def get_objective(name: str) -> Objective:
    """Return the objective with a given name.

    Raises:
        InputError: There is no such objective. The message lists all objectives.
    """
    if name not in OBJECTIVES:
        raise InputError(unknown_name("objective", name, OBJECTIVES))
    return OBJECTIVES[name]


class BudgetMultiplier:
    """Multiplier μ ≥ 0, adjusted by dual ascent: μ rises while E > T and falls while E < T.

    Plain dual ascent only integrates the excess e = E / T - 1. Then E oscillates around the budget, because α reacts to
    μ with a delay. So a term proportional to the current excess is added (a PI controller; Stooke, Achiam, Abbeel,
    "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods", ICML 2020): μ = max(0, I + k e), where each
    step updates I ← max(0, I + r e).

    Args:
        rate: Integral gain r per architecture step.
        gain: Proportional gain k.

    Attributes:
        integral: Integral term I.
        value: Multiplier μ.
    """

    def __init__(self, rate: float, gain: float) -> None:
        self.rate = rate
        self.gain = gain
        self.integral = 0.0
        self.value = 0.0

    def update(self, excess: float) -> float:
        """Take one step of dual ascent.

        Args:
            excess: Relative excess E / T - 1 of the expected latency over the budget.

        Returns:
            New multiplier μ.
        """
        self.integral = max(0.0, self.integral + self.rate * excess)
        self.value = max(0.0, self.integral + self.gain * excess)
        return self.value

    def state_dict(self) -> dict[str, float]:
        return {"integral": self.integral, "value": self.value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.integral, self.value = float(state["integral"]), float(state["value"])
