"""How accuracy and latency are weighed against each other in one loss. Pure functions of tensors.

| symbol | here | meaning |
|---|---|---|
| CE | `loss` | cross-entropy (or any loss) of the sampled network, a scalar |
| E | `expected_latency_ms` | E[latency] in milliseconds, a scalar |
| ref, T | `reference_ms` | the latency that E is compared with, in milliseconds |
| λ, b, μ | `weight` | how much latency counts |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from ..errors import InputError, unknown_name

Objective = Callable[[Tensor, Tensor, float, float], Tensor]


def add_linear(loss: Tensor, expected_latency_ms: Tensor, reference_ms: float, weight: float) -> Tensor:
    """CE + λ (E / ref - 1): each per cent of latency costs as much anywhere (paper eq. 7, up to a constant)."""
    return loss + weight * (expected_latency_ms / reference_ms - 1.0)


def mul_log(loss: Tensor, expected_latency_ms: Tensor, reference_ms: float, weight: float) -> Tensor:
    """CE · (log E / log ref)^b, the form of the paper's released code, with latencies in milliseconds.

    Raises:
        InputError: The latencies are not above 1 ms, where the logarithm changes its sign.
    """
    if reference_ms <= 1.0 or float(expected_latency_ms.detach()) <= 1.0:
        raise InputError(
            f"objective mul_log needs latencies above 1 ms, got {float(expected_latency_ms.detach()):.4g} ms with "
            f"reference {reference_ms:.4g} ms; use add_linear for networks this fast"
        )
    return loss * (expected_latency_ms.log() / math.log(reference_ms)) ** weight


def budget(loss: Tensor, expected_latency_ms: Tensor, reference_ms: float, weight: float) -> Tensor:
    """CE + μ (E / T - 1), the Lagrangian of "minimise CE where E ≤ T"; `BudgetMultiplier` finds μ."""
    return add_linear(loss, expected_latency_ms, reference_ms, weight)


OBJECTIVES: dict[str, Objective] = {"add_linear": add_linear, "mul_log": mul_log, "budget": budget}


def get_objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        InputError: There is none; the message lists what exists.
    """
    if name not in OBJECTIVES:
        raise InputError(unknown_name("objective", name, OBJECTIVES))
    return OBJECTIVES[name]


class BudgetMultiplier:
    """μ ≥ 0 by dual ascent: raised while E > T, lowered while E < T.

    Plain dual ascent, the integral of the excess e = E / T - 1, swings around the budget, as α answers late. So the
    present excess counts as well (a PI controller; Stooke, Achiam, Abbeel, "Responsive Safety in Reinforcement Learning
    by PID Lagrangian Methods", ICML 2020): μ = max(0, I + k e), where I ← max(0, I + r e) at each step.

    Args:
        rate: r, for each architecture step.
        gain: k.

    Attributes:
        integral: I.
        value: μ.
    """

    def __init__(self, rate: float, gain: float) -> None:
        self.rate = rate
        self.gain = gain
        self.integral = 0.0
        self.value = 0.0

    def update(self, excess: float) -> float:
        """One step of dual ascent.

        Args:
            excess: E / T - 1.

        Returns:
            The new μ.
        """
        self.integral = max(0.0, self.integral + self.rate * excess)
        self.value = max(0.0, self.integral + self.gain * excess)
        return self.value

    def state_dict(self) -> dict[str, float]:
        return {"integral": self.integral, "value": self.value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.integral, self.value = float(state["integral"]), float(state["value"])
