"""REINFORCE, compared with an enumeration of all networks."""

from __future__ import annotations

import itertools

import pytest
import torch

from nni_proxyless.strategies.reinforce import MovingAverage, reward, surrogate
from nni_proxyless.supernet.binary_gates import PathSample, log_likelihood, path_probs, sample_path

REWARDS = torch.tensor([[0.2, 0.9], [0.5, 0.1], [0.7, 0.4]])  # by path of the first layer and path of the second layer


def alphas() -> list[torch.Tensor]:
    return [torch.tensor([0.3, -0.2, 0.5], requires_grad=True), torch.tensor([-0.4, 0.1], requires_grad=True)]


def exact_gradient() -> list[torch.Tensor]:
    """Compute the gradient of -J = -Σ p(network) R(network)."""
    layers = alphas()
    (-(path_probs(layers[0]) @ REWARDS @ path_probs(layers[1]))).backward()
    return [a.grad for a in layers]  # type: ignore[misc]


@pytest.mark.parametrize("baseline", [0.0, 0.55])
def test_its_expectation_is_the_gradient_whatever_the_baseline(baseline: float) -> None:
    """The mean of the surrogate gradients, weighted by the networks' probabilities, is the exact gradient."""
    layers = alphas()
    total = [torch.zeros_like(a) for a in layers]
    for i, j in itertools.product(range(3), range(2)):
        p = float((path_probs(layers[0])[i] * path_probs(layers[1])[j]).detach())
        likelihood = log_likelihood(layers[0], PathSample(i)) + log_likelihood(layers[1], PathSample(j))
        loss = surrogate(likelihood[None], REWARDS[i, j][None], baseline)
        for sum_, gradient in zip(total, torch.autograd.grad(loss, layers), strict=True):
            sum_ += p * gradient
    for found, exact in zip(total, exact_gradient(), strict=True):
        torch.testing.assert_close(found, exact)


def test_sampled_gradients_approach_it() -> None:
    layers, generator = alphas(), torch.Generator().manual_seed(0)
    picks = [[sample_path(a, generator) for a in layers] for _ in range(20_000)]
    likelihoods = torch.stack([log_likelihood(layers[0], i) + log_likelihood(layers[1], j) for i, j in picks])
    rewards = torch.tensor([float(REWARDS[i.active, j.active]) for i, j in picks])
    surrogate(likelihoods, rewards, 0.5).backward()
    for a, exact in zip(layers, exact_gradient(), strict=True):
        torch.testing.assert_close(a.grad, exact, atol=0.01, rtol=0.0)


def test_a_baseline_lowers_the_variance() -> None:
    def variance(baseline: float) -> float:
        layers, generator = alphas(), torch.Generator().manual_seed(1)
        found = []
        for _ in range(500):
            pick = [sample_path(a, generator) for a in layers]
            likelihood = sum(log_likelihood(a, p) for a, p in zip(layers, pick, strict=True))
            loss = surrogate(likelihood[None], REWARDS[pick[0].active, pick[1].active][None], baseline)  # type: ignore[index]
            found.append(torch.cat(list(torch.autograd.grad(loss, layers))))
        return float(torch.stack(found).var(0).sum())

    mean = float((path_probs(alphas()[0]) @ REWARDS @ path_probs(alphas()[1])).detach())
    assert variance(mean) < 0.6 * variance(0.0)


def test_rewards_by_hand() -> None:
    assert reward(0.8, None, 1.0, 0.5) == 0.8
    assert reward(0.8, 20.0, 20.0, 0.5) == pytest.approx(0.8)
    assert reward(0.8, 80.0, 20.0, 0.5) == pytest.approx(0.4)
    assert reward(0.8, 5.0, 20.0, 0.0) == pytest.approx(0.8)


def test_the_baseline_of_a_batch_is_that_of_the_batches_before() -> None:
    baseline = MovingAverage(decay=0.5)
    assert baseline.update(torch.tensor([0.2, 0.4])) == pytest.approx(0.3)
    assert baseline.update(torch.tensor([0.7, 0.9])) == pytest.approx(0.3)
    assert baseline.value == pytest.approx(0.55)
    other = MovingAverage(decay=0.5)
    other.load_state_dict(baseline.state_dict())
    assert other.update(torch.tensor([0.0])) == baseline.update(torch.tensor([0.0]))
