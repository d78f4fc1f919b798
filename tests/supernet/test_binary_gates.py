"""Gradients of gates, compared with an exact enumeration of all gate outcomes and with finite differences."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nni_proxyless.supernet.binary_gates import (
    PathSample,
    conditional_probs,
    entropy,
    fair_path,
    gated_sum,
    path_probs,
    rescale_pairs,
    sample_all,
    sample_pair,
    sample_path,
    straight_through_gates,
)

N = 4


def finite_difference(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    gradient = torch.zeros_like(at)
    for i in range(len(at)):
        shift = torch.zeros_like(at)
        shift[i] = step
        gradient[i] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


class TwoLayers:
    """Network y = A_j B_i x with the loss c·y. The loss is linear, so ⟨∂L/∂y, o_j⟩ is exactly the loss of path j."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(5, dtype=torch.float64, generator=generator)
        self.first = torch.randn(N, 5, 5, dtype=torch.float64, generator=generator)
        self.second = torch.randn(N, 5, 5, dtype=torch.float64, generator=generator)
        self.c = torch.randn(5, dtype=torch.float64, generator=generator)

    def loss(self, i: int, j: int) -> Tensor:
        return self.c @ self.second[j] @ self.first[i] @ self.x

    def losses(self) -> Tensor:
        return torch.stack([torch.stack([self.loss(i, j) for j in range(N)]) for i in range(N)])

    def gated_gradients(self, alphas: list[Tensor], samples: list[PathSample]) -> list[Tensor]:
        leaves = [a.clone().requires_grad_() for a in alphas]
        y = self.x
        for weights, alpha, sample in zip((self.first, self.second), leaves, samples, strict=True):
            outputs = [weights[k] @ (y if k == sample.active else y.detach()) for k in sample.paths]
            y = gated_sum(straight_through_gates(alpha, sample), outputs)
        (self.c @ y).backward()
        return [leaf.grad for leaf in leaves]


@pytest.fixture
def alphas() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(N, dtype=torch.float64, generator=generator) for _ in range(2)]


def test_full_gradient_is_exact_in_expectation_over_all_gate_outcomes(alphas: list[Tensor]) -> None:
    net, losses = TwoLayers(), TwoLayers().losses()
    p, q = (path_probs(a) for a in alphas)
    estimate = [torch.zeros(N, dtype=torch.float64) for _ in alphas]
    for i, j in itertools.product(range(N), repeat=2):
        samples = [PathSample(k, tuple(m for m in range(N) if m != k)) for k in (i, j)]
        for total, gradient in zip(estimate, net.gated_gradients(alphas, samples), strict=True):
            total += p[i] * q[j] * gradient
    torch.testing.assert_close(
        estimate[0], finite_difference(lambda a: path_probs(a) @ losses @ q, alphas[0]), rtol=1e-6, atol=1e-8
    )
    torch.testing.assert_close(
        estimate[1], finite_difference(lambda a: p @ losses @ path_probs(a), alphas[1]), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize(("pair_1", "pair_2"), [((0, 1), (2, 3)), ((3, 1), (0, 2)), ((2, 0), (1, 0))])
def test_two_path_gradient_is_exact_given_the_pairs(
    alphas: list[Tensor], pair_1: tuple[int, int], pair_2: tuple[int, int]
) -> None:
    """Enumerate the four outcomes of two given pairs. The active paths are drawn from p renormalised over each pair."""
    net = TwoLayers()
    block = net.losses()[list(pair_1)][:, list(pair_2)]

    def conditional(pair: tuple[int, int], alpha: Tensor) -> Tensor:
        return path_probs(alpha)[list(pair)] / path_probs(alpha)[list(pair)].sum()

    estimate = [torch.zeros(N, dtype=torch.float64) for _ in alphas]
    for first, second in itertools.product((0, 1), repeat=2):
        samples = [PathSample(pair_1[first], (pair_1[1 - first],)), PathSample(pair_2[second], (pair_2[1 - second],))]
        weight = conditional(pair_1, alphas[0])[first] * conditional(pair_2, alphas[1])[second]
        for total, gradient in zip(estimate, net.gated_gradients(alphas, samples), strict=True):
            total += weight * gradient
    expected = [
        finite_difference(lambda a: conditional(pair_1, a) @ block @ conditional(pair_2, alphas[1]), alphas[0]),
        finite_difference(lambda a: conditional(pair_1, alphas[0]) @ block @ conditional(pair_2, a), alphas[1]),
    ]
    torch.testing.assert_close(estimate, expected, rtol=1e-6, atol=1e-8)
    outside = [k for k in range(N) if k not in pair_1]
    assert torch.equal(estimate[0][outside], torch.zeros(len(outside), dtype=torch.float64))


@pytest.mark.parametrize("active", range(N))
def test_every_outcome_has_the_gradient_of_equation_4(alphas: list[Tensor], active: int) -> None:
    """Compare ∂L/∂α_i with Σ_j ∂L/∂g_j p_j (δ_ij - p_i), computed by hand, for a loss that is not linear."""
    outputs = torch.randn(N, 6, dtype=torch.float64)
    alpha = alphas[0].clone().requires_grad_()
    sample = PathSample(active, tuple(k for k in range(N) if k != active))
    y = gated_sum(straight_through_gates(alpha, sample), [outputs[k] for k in sample.paths])
    (y**3).sum().backward()
    grad_y = 3 * outputs[active] ** 2
    p = path_probs(alphas[0])
    by_hand = torch.zeros(N, dtype=torch.float64)
    for i in range(N):
        for j in range(N):
            by_hand[i] += (grad_y @ outputs[j]) * p[j] * (float(i == j) - p[i])
    torch.testing.assert_close(alpha.grad, by_hand)


def test_gradient_flows_into_the_active_path_only() -> None:
    active, other = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    alpha = torch.zeros(2, requires_grad=True)
    gated_sum(straight_through_gates(alpha, PathSample(0, (1,))), [active, other]).sum().backward()
    assert torch.equal(active.grad, torch.ones(3))
    assert other.grad is None


def test_tuples_dictionaries_and_whole_numbers_pass() -> None:
    alpha = torch.zeros(2, requires_grad=True)
    first = ({"a": torch.ones(2), "n": torch.tensor([1])}, torch.full((3,), 2.0))
    second = ({"a": torch.zeros(2), "n": torch.tensor([2])}, torch.full((3,), 5.0))
    left, right = gated_sum(straight_through_gates(alpha, PathSample(0, (1,))), [first, second])
    assert torch.equal(left["a"], torch.ones(2))
    assert torch.equal(left["n"], torch.tensor([1]))
    (left["a"].sum() + right.sum()).backward()
    # The losses of the two paths are 2 + 6 = 8 and 0 + 15 = 15, and their probabilities are 1/2.
    torch.testing.assert_close(alpha.grad, torch.tensor([-(15.0 - 8.0) / 4, (15.0 - 8.0) / 4]))


def test_different_structures_are_refused() -> None:
    gates = straight_through_gates(torch.zeros(2, requires_grad=True), PathSample(0, (1,)))
    with pytest.raises(TypeError, match=r"path 0 returns a tensor of shape .* but path 1 returns tuple"):
        gated_sum(gates, [torch.ones(1), (torch.ones(1),)])


def test_output_may_be_changed_in_place() -> None:
    alpha = torch.zeros(2, requires_grad=True)
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    y = gated_sum(straight_through_gates(alpha, PathSample(0, (1,))), [x * 1.0, torch.tensor([3.0, 3.0])])
    y.relu_().sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(alpha.grad, torch.tensor([-0.25, 0.25]))  # ⟨(0, 1), (3, 3) - (-1, 2)⟩ = 1


def test_paths_are_drawn_from_their_probabilities() -> None:
    alpha = torch.tensor([0.0, 1.0, -0.5, 0.3])
    generator = torch.Generator().manual_seed(0)
    draws = 20_000
    counts = Counter(sample_path(alpha, generator).active for _ in range(draws))
    p = path_probs(alpha)
    for i in range(N):
        assert counts[i] / draws == pytest.approx(float(p[i]), abs=0.015)
    everything = sample_all(alpha, generator)
    assert sorted(everything.paths) == list(range(N))


@pytest.mark.parametrize("pruned", [(), (1,)])
def test_paths_take_turns(pruned: tuple[int, ...]) -> None:
    """In each round, every path that is not pruned runs once. The order differs between rounds and layers."""
    logits = torch.zeros(5)
    logits[list(pruned)] = -torch.inf
    kept = [i for i in range(5) if i not in pruned]
    rounds = [
        tuple(fair_path(logits, step, seed).active for step in range(n * len(kept), (n + 1) * len(kept)))
        for seed in (7, 8)
        for n in range(20)
    ]
    assert all(sorted(of) == kept for of in rounds)
    assert len(set(rounds[:20])) > 5
    assert rounds[:20] != rounds[20:]


def test_pairs_are_drawn_without_replacement_and_the_active_one_from_the_pair() -> None:
    alpha = torch.tensor([0.0, 1.0, -0.5, 0.3])
    generator = torch.Generator().manual_seed(0)
    draws = 20_000
    counts = Counter((s.active, s.inactive[0]) for s in (sample_pair(alpha, generator) for _ in range(draws)))
    p = path_probs(alpha).double()
    for a, b in itertools.permutations(range(N), 2):
        drawn = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])  # probability of the pair, drawn in either order
        expected = drawn * p[a] / (p[a] + p[b])
        assert counts[(a, b)] / draws == pytest.approx(float(expected), abs=0.015)


def test_pairs_of_a_collapsed_layer_are_still_two_paths() -> None:
    sample = sample_pair(torch.tensor([80.0, 0.0, 1.0]))
    assert sorted(sample.paths)[0] == 0
    assert len(set(sample.paths)) == 2
    assert sample_pair(torch.zeros(1)) == PathSample(0)


@pytest.mark.parametrize("seed", range(20))
def test_rescaling_leaves_all_other_probabilities_unchanged(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    before = 3 * torch.randn(6, generator=generator, dtype=torch.float64)
    after = before + torch.randn(6, generator=generator, dtype=torch.float64)  # momentum may move all α
    sample = PathSample(4, (1,))
    updated = after.clone()
    rescale_pairs([after], [before], [sample])
    others = [0, 2, 3, 5]
    torch.testing.assert_close(path_probs(after)[others], path_probs(before)[others], rtol=0, atol=1e-6)
    shift = after - updated
    assert float(shift[4] - shift[1]) == pytest.approx(0.0, abs=1e-12)  # both α of the pair have the same shift
    assert not torch.allclose(path_probs(after)[[1, 4]], path_probs(before)[[1, 4]])


def test_rescaling_all_layers_at_once_follows_the_formula_in_each() -> None:
    generator = torch.Generator().manual_seed(0)
    before = [2 * torch.randn(n, generator=generator) for n in (4, 7, 1)]
    before[0][3] = -torch.inf  # pruned
    after = [alpha + torch.randn(len(alpha), generator=generator) for alpha in before]
    samples, temperature = [PathSample(2, (0,)), PathSample(6, (1,)), PathSample(0)], 0.5
    expected = [alpha.clone() for alpha in before]
    for alpha, moved, then, sample in zip(expected, after, before, samples, strict=True):
        pair = list(sample.paths)
        total_then, total_now = (torch.logsumexp(values[pair] / temperature, 0) for values in (then, moved))
        alpha[pair] = moved[pair] + temperature * (total_then - total_now)
    rescale_pairs(after, before, samples, temperature)
    for alpha, wanted in zip(after, expected, strict=True):
        torch.testing.assert_close(alpha, wanted, rtol=1e-6, atol=1e-6)


def test_conditional_probs_have_the_value_of_p_and_the_gradient_of_the_pair(alphas: list[Tensor]) -> None:
    costs = torch.tensor([1.0, 5.0, 2.0, 9.0], dtype=torch.float64)
    alpha = alphas[0].clone().requires_grad_()
    sample = PathSample(3, (1,))
    value = conditional_probs(alpha, sample) @ costs
    torch.testing.assert_close(value, path_probs(alpha) @ costs)
    value.backward()

    def of_the_pair(a: Tensor) -> Tensor:
        return torch.softmax(a[[1, 3]], 0) @ costs[[1, 3]]

    torch.testing.assert_close(alpha.grad, finite_difference(of_the_pair, alphas[0]), rtol=1e-6, atol=1e-8)


def test_conditional_probs_of_all_paths_are_p(alphas: list[Tensor]) -> None:
    costs = torch.tensor([1.0, 5.0, 2.0, 9.0], dtype=torch.float64)
    alpha = alphas[0].clone().requires_grad_()
    (conditional_probs(alpha, PathSample(1, (0, 2, 3))) @ costs).backward()
    torch.testing.assert_close(
        alpha.grad, finite_difference(lambda a: path_probs(a) @ costs, alphas[0]), rtol=1e-6, atol=1e-8
    )


def test_entropy_of_known_distributions() -> None:
    assert float(entropy(torch.full((8,), 1 / 8))) == pytest.approx(2.0794415)  # ln 8
    assert float(entropy(torch.tensor([1.0, 0.0]))) == 0.0


@pytest.mark.parametrize("formats", list(itertools.product((torch.contiguous_format, torch.channels_last), repeat=2)))
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 5)])
def test_gradients_of_gates_in_every_memory_format(
    shape: tuple[int, ...], formats: tuple[torch.memory_format, torch.memory_format]
) -> None:
    """∂L/∂g = ⟨∂L/∂y, o_1 - o_0⟩ for all memory formats of gradient and outputs."""
    weight = torch.randn(shape).contiguous(memory_format=formats[0])
    outputs = [torch.randn(shape).contiguous(memory_format=formats[1]) for _ in range(2)]
    gates = torch.tensor([1.0, 0.0], requires_grad=True)
    gated_sum(gates, outputs).backward(weight)
    expected = (weight.double() * (outputs[1].double() - outputs[0].double())).sum()
    assert gates.grad is not None
    torch.testing.assert_close(gates.grad, torch.tensor([0.0, float(expected)]), rtol=1e-5, atol=1e-5)
