from __future__ import annotations

import math

import pytest
import torch

from nni_proxyless.errors import InputError
from nni_proxyless.strategies.objective import BudgetMultiplier, add_linear, get_objective, mul_log


def test_add_linear_by_hand() -> None:
    loss, latency = torch.tensor(2.0, requires_grad=True), torch.tensor(30.0, requires_grad=True)
    value = add_linear(loss, latency, 20.0, 0.4)
    assert value.item() == pytest.approx(2.0 + 0.4 * 0.5)
    value.backward()
    assert float(loss.grad) == 1.0
    assert float(latency.grad) == pytest.approx(0.4 / 20)


def test_mul_log_by_hand() -> None:
    loss, latency = torch.tensor(2.0, requires_grad=True), torch.tensor(30.0, requires_grad=True)
    value = mul_log(loss, latency, 20.0, 0.6)
    assert value.item() == pytest.approx(2.0 * (math.log(30) / math.log(20)) ** 0.6)
    value.backward()
    slope = 2.0 * 0.6 * (math.log(30) / math.log(20)) ** -0.4 / (30 * math.log(20))
    assert float(latency.grad) == pytest.approx(slope)


@pytest.mark.parametrize(("latency", "reference"), [(0.5, 20.0), (30.0, 1.0)])
def test_mul_log_refuses_latencies_whose_logarithm_is_not_positive(latency: float, reference: float) -> None:
    with pytest.raises(InputError, match="above 1 ms"):
        mul_log(torch.tensor(1.0), torch.tensor(latency), reference, 0.6)


def test_unknown_objective_lists_what_exists() -> None:
    with pytest.raises(InputError, match=r"unknown objective 'add_liner'; did you mean 'add_linear'\?.*mul_log"):
        get_objective("add_liner")


def test_budget_is_the_lagrangian() -> None:
    value = get_objective("budget")(torch.tensor(2.0), torch.tensor(30.0), 20.0, 0.4)
    assert value.item() == pytest.approx(2.0 + 0.4 * 0.5)


@pytest.mark.parametrize(("rate", "gain"), [(0.02, 0.0), (0.02, 1.0), (0.2, 10.0)])
def test_dual_ascent_finds_the_multiplier_of_a_quadratic(rate: float, gain: float) -> None:
    """Minimise (x - 3)^2 subject to x <= 2. At the optimum x = 2, 2 (x - 3) + μ / T = 0, so μ = 2 T = 4."""
    budget, x = 2.0, 0.5
    multiplier = BudgetMultiplier(rate, gain)
    for _ in range(5000):
        x -= 0.02 * (2 * (x - 3) + multiplier.value / budget)
        multiplier.update(x / budget - 1)
    assert x == pytest.approx(2.0, rel=0.01)
    assert multiplier.value == pytest.approx(4.0, rel=0.02)


def test_a_budget_that_does_not_bind_leaves_no_multiplier() -> None:
    budget, x = 5.0, 6.0
    multiplier = BudgetMultiplier(0.05, 1.0)
    for _ in range(5000):
        x -= 0.02 * (2 * (x - 3) + multiplier.value / budget)
        multiplier.update(x / budget - 1)
    assert x == pytest.approx(3.0, abs=1e-3)
    assert multiplier.value == 0.0


def test_a_multiplier_is_taken_up_where_it_was() -> None:
    first, second = BudgetMultiplier(0.1, 2.0), BudgetMultiplier(0.1, 2.0)
    for excess in (0.3, 0.2, -0.1):
        first.update(excess)
    second.load_state_dict(first.state_dict())
    assert second.value == first.value
    assert [first.update(0.05), first.update(-0.2)] == [second.update(0.05), second.update(-0.2)]
