from __future__ import annotations

import math

import pytest
import torch

from nni_proxyless.errors import InputError
from nni_proxyless.objective import add_linear, get_objective, mul_log


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
