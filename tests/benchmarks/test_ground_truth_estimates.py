"""Estimates of true accuracies against dense formulas, and against truths that were made up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from benchmarks.search_quality.ground_truth.estimates import (
    Estimates,
    Trainings,
    Variances,
    design,
    draw,
    estimate,
    fit,
)
from benchmarks.search_quality.ground_truth.oracle import picked_regret, picks, repeated_regret

CHOICES = list(itertools.product("abc", "de", "fgh"))
COUNTS = np.array([1.0, 2.0, 5.0] * 6)
FLAT = 100.0**2  # variance of the mean, which may be anything


def measured(seed: int = 0) -> Trainings:
    means = 50 + np.random.default_rng(seed).normal(0, 2, len(CHOICES))
    return Trainings(CHOICES, means, COUNTS, squares=20.0, freedom=30)


def covariance(main: float, pair: float, own: float) -> np.ndarray:
    """Of the true accuracies, entry by entry."""
    made = np.full((len(CHOICES),) * 2, FLAT)
    for (i, first), (j, second) in itertools.product(enumerate(CHOICES), repeat=2):
        equal = sum(a == b for a, b in zip(first, second, strict=True))
        made[i, j] += main * equal + pair * equal * (equal - 1) / 2 + own * (i == j)
    return made


def test_draws_have_the_distribution_given_the_trainings() -> None:
    found = Variances(main=1.5, pair=0.4, own=0.2, noise=0.8, log_likelihood=0.0)
    of = measured()
    prior = covariance(1.5, 0.4, 0.2)
    gain = prior @ np.linalg.inv(prior + np.diag(0.8 / COUNTS))
    mean, spread = of.means.mean() + gain @ (of.means - of.means.mean()), prior - gain @ prior
    drawn = draw(of, design(CHOICES), found, 40_000, np.random.default_rng(1))
    assert drawn.mean(0) == pytest.approx(mean, abs=0.02)  # the standard error is 0.004
    assert np.cov(drawn.T) == pytest.approx(spread, abs=0.02)


def test_the_likelihood_is_that_of_the_means_and_of_the_squares() -> None:
    of, columns = measured(), design(CHOICES)
    constants = []
    for ratio in (0.0, 0.5, 1.0):
        found = fit(of, columns, ratio)
        assert found.own == pytest.approx(ratio**2 * found.noise)
        spread = covariance(found.main, found.pair, found.own) + np.diag(found.noise / COUNTS)
        of_means = multivariate_normal(np.full(len(CHOICES), of.means.mean()), spread).logpdf(of.means)
        of_squares = -0.5 * (of.freedom * np.log(found.noise) + of.squares / found.noise)
        constants.append(found.log_likelihood - of_means - of_squares)
    assert constants == pytest.approx([constants[0]] * 3, abs=1e-4)


def test_many_trainings_leave_nothing_to_estimate() -> None:
    means = measured().means
    found = estimate(Trainings(CHOICES, means, np.full(len(CHOICES), 1e6), squares=500.0, freedom=500), draws=200)
    assert found.accuracy == pytest.approx(means, abs=0.01)
    assert found.noise == pytest.approx(1.0, rel=0.1)


def test_one_training_each_is_refused() -> None:
    with pytest.raises(ValueError, match="no network has two trainings; train at least one network with two seeds"):
        estimate(Trainings(CHOICES, measured().means, np.ones(len(CHOICES)), squares=0.0, freedom=0))


@pytest.mark.slow
def test_the_best_is_not_the_luckiest() -> None:
    """The best mean of noisy trainings is too good; the expected best accuracy and regrets are right on average."""
    generator = np.random.default_rng(0)
    every = np.arange(len(CHOICES))
    luck, bias, regrets = [], [], []
    for _ in range(20):
        effects = [
            dict(zip(names, generator.normal(0, 0.5, len(names)), strict=True)) for names in ("abc", "de", "fgh")
        ]
        true = np.array([50 + sum(of[c] for of, c in zip(effects, names, strict=True)) for names in CHOICES])
        true += generator.normal(0, 0.2, len(true))
        trained = true[:, None] + generator.normal(0, 1.0, (len(true), 2))
        means = trained.mean(1)
        squares = float(((trained - means[:, None]) ** 2).sum())
        found = estimate(Trainings(CHOICES, means, np.full(len(true), 2.0), squares, len(true)), draws=400)
        luck.append(means.max() - true.max())
        bias.append(found.best(every).mean() - true.max())
        expected = picked_regret(found, [every], picks(means, [every])).mean()
        regrets.append(expected - (true.max() - true[means.argmax()]))
    error = np.std(bias) / np.sqrt(len(bias))
    assert np.mean(luck) > 0.4
    assert abs(np.mean(bias)) < 3 * error
    assert abs(np.mean(regrets)) < 3 * np.std(regrets) / np.sqrt(len(regrets))


def test_regrets_of_oracles_by_hand() -> None:
    draws = np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 0.0]])
    found = Estimates(draws, noise=0.0, deviations={})
    within = [np.array([0, 1]), np.array([0, 1, 2])]
    assert picks(found.accuracy, within) == [0, 0]  # means 2, 2, 2: the first
    # First draw: 2 - 1 and 4 - 1; second draw: 3 - 3 twice.
    assert picked_regret(found, within, [0, 0]) == pytest.approx([2.0, 0.0])
    assert repeated_regret(found, np.ones(3), within) == pytest.approx([0.0, 0.0])  # without noise the best is seen
    noisy = Estimates(np.tile([1.0, 0.0], (20_000, 1)), noise=1.0, deviations={})
    # One training each: the worse one seems better with probability Φ(-1 / √2), and then costs one point.
    assert repeated_regret(noisy, np.ones(2), [np.array([0, 1])]).mean() == pytest.approx(0.2398, abs=0.01)
