"""Smoothed accuracies of finalists, compared with an explicit regression and with accuracies known by construction."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from scipy.stats import spearmanr

from nni_proxyless.decoding.ranking import add_weighted_criteria, additive_fit, rank_values

CANDIDATES = {"a": ["k3", "k5", "skip"], "b": ["k3", "k5"], "c": [[0], [1], [0, 1]]}
ALL = [dict(zip(CANDIDATES, picks, strict=True)) for picks in itertools.product(*CANDIDATES.values())]


def accuracies(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw true accuracies, which are additive over layers, and noisy observations of them."""
    generator = np.random.default_rng(seed)
    worth = {label: generator.normal(0, 0.01, len(of)) for label, of in CANDIDATES.items()}
    true = np.array([0.5 + sum(worth[la][CANDIDATES[la].index(c)] for la, c in one.items()) for one in ALL])
    return true, true + generator.normal(0, noise, len(ALL))


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_it_is_bayesian_regression_on_the_candidates(noise: float) -> None:
    """Compare with the posterior mean of a linear regression, with a normal prior of variance 1 / layers."""
    _, seen = accuracies(0, 0.01)
    columns = [(label, candidate) for label, of in CANDIDATES.items() for candidate in of]
    design = np.array([[float(one[label] == candidate) for label, candidate in columns] for one in ALL])
    posterior = np.linalg.solve(
        design.T @ design / noise + np.eye(len(columns)) * len(CANDIDATES), design.T @ (seen - seen.mean()) / noise
    )
    expected = seen.mean() + design @ posterior
    assert additive_fit(ALL, seen.tolist(), noise) == pytest.approx(expected.tolist(), abs=1e-8)


def test_it_ranks_better_than_what_it_smooths() -> None:
    gains = []
    for seed in range(20):
        true, seen = accuracies(seed, 0.01)
        fitted = additive_fit(ALL, seen.tolist())
        gains.append(spearmanr(fitted, true).statistic - spearmanr(seen, true).statistic)
    assert np.mean(gains) > 0.05
    assert np.mean(np.array(gains) > 0) >= 0.9


def test_two_architectures_keep_their_order() -> None:
    one, other = ALL[0], ALL[-1]
    assert additive_fit([one, other], [0.4, 0.5])[1] > additive_fit([one, other], [0.4, 0.5])[0]
    assert additive_fit([one], [0.4]) == [0.4]
    assert len(set(additive_fit(ALL, [0.1] * len(ALL)))) == 1  # so the first, most likely one is selected


def test_the_order_in_which_they_come_does_not_matter() -> None:
    _, seen = accuracies(1, 0.01)
    order = list(range(len(ALL)))
    random.Random(0).shuffle(order)
    fitted = additive_fit(ALL, seen.tolist())
    assert additive_fit([ALL[i] for i in order], [seen[i] for i in order]) == pytest.approx([fitted[i] for i in order])


def test_other_opinions_count_a_little() -> None:
    """Check values computed by hand.

    The accuracies have a standard deviation of 0.02, and the other values one of 3. So the higher of the two values
    raises the accuracy by 0.5 · 0.02 · 1.
    """
    assert add_weighted_criteria([0.3, 0.34], ([-8.0, -2.0], 0.5)) == pytest.approx([0.29, 0.35])
    assert add_weighted_criteria([0.3, 0.34], ([-2.0, -8.0], 0.5)) == pytest.approx([0.31, 0.33])
    assert add_weighted_criteria([0.3, 0.34], ([-2.0, -8.0], 0.5), ([1.0, 9.0], 1.0)) == pytest.approx([0.29, 0.35])
    assert add_weighted_criteria([0.3, 0.34], ([-2.0, -8.0], 0.0)) == [0.3, 0.34] == add_weighted_criteria([0.3, 0.34])
    assert add_weighted_criteria([0.3, 0.34], ([-2.0, -2.0], 0.5)) == [
        0.3,
        0.34,
    ]  # the likelihoods are equal if a strategy learns nothing about paths
    assert add_weighted_criteria([0.3], ([-2.0], 0.5)) == [0.3]
    equal = add_weighted_criteria([0.3, 0.3, 0.3], ([-1.0, -2.0, -4.0], 0.5))
    assert equal == [0.3, 0.3, 0.3]  # so the first, most likely one is selected


def test_finalists_are_compared_by_four_opinions() -> None:
    """Check values computed by hand.

    Two networks without a common candidate keep their order when they are smoothed. Their accuracies are then mean ± s,
    and each further criterion is ± 1 in units of its standard deviation.
    """
    pair, accuracies = [ALL[0], ALL[-1]], [0.4, 0.5]
    low, high = additive_fit(pair, accuracies)
    mean, s = (low + high) / 2, (high - low) / 2
    assert rank_values(pair, accuracies, [-1.0, -2.0]) == pytest.approx([mean - 0.85 * s, mean + 0.85 * s])
    # Multiply-adds count by their logarithms. For two networks, only the order of the logarithms matters.
    assert rank_values(pair, accuracies, [-1.0, -2.0], [7e6, 6e6]) == pytest.approx([mean - 0.55 * s, mean + 0.55 * s])
    assert rank_values(pair, accuracies, [-2.0, -1.0], [6e6, 7e6]) == pytest.approx([mean - 1.45 * s, mean + 1.45 * s])
    # Activations count like multiply-adds, with half a standard deviation.
    assert rank_values(pair, accuracies, [-1.0, -2.0], [7e6, 6e6], [5e4, 4e4]) == pytest.approx(
        [mean - 0.05 * s, mean + 0.05 * s]
    )
    assert rank_values(pair, accuracies, [-1.0, -2.0], activations=[4e4, 5e4]) == pytest.approx(
        [mean - 1.35 * s, mean + 1.35 * s]
    )
    # For three networks, the logarithms 0, 1 and 5 times log 2 have mean 2 and standard deviation √(14/3).
    three = [ALL[0], ALL[1], ALL[2]]
    fitted = np.array(additive_fit(three, [0.4, 0.5, 0.45]))
    expected = fitted + 0.3 * fitted.std() * (np.array([0, 1, 5]) - 2) / np.sqrt(14 / 3)
    assert rank_values(three, [0.4, 0.5, 0.45], [-1.0] * 3, [1e6, 2e6, 32e6]) == pytest.approx(expected.tolist())
