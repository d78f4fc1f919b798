"""Comparisons of searches that are paired by seed, against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.search_quality.ground_truth.estimates import Estimates
from benchmarks.search_quality.summary import paired, paired_table
from benchmarks.search_quality.supernet_tables import true_spearman


def rows(*regrets: tuple[int, str, float]) -> list[dict[str, str]]:
    """One row for each seed, budget and regret in points."""
    return [
        {"target": "t", "budget": budget, "seed": str(seed), "regret": str(regret / 100)}
        for seed, budget, regret in regrets
    ]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_seeds_are_the_observations() -> None:
    first = rows((0, "a", 1.0), (0, "b", 2.0), (1, "a", 1.0), (1, "b", 1.0), (2, "a", 0.0), (2, "b", 3.0))
    other = rows((0, "a", 2.0), (0, "b", 2.0), (1, "a", 3.0), (1, "b", 1.0), (2, "a", 3.0), (2, "b", 2.0))
    # Differences: 1, 0; 2, 0; 3, -1. Means of the seeds: 0.5, 1, 1. Their mean is 5/6, their deviation √(1/12), and the
    # standard error √(1/12) / √3 = 1/6, so t is 5. With two degrees of freedom, p = 1 - t / √(2 + t²).
    _, _, row = cells(paired_table({"first": first, "other": other}))
    p = 1 - 5 / math.sqrt(27)
    assert row == ["other", "6", "3", "2.17", "1.33", "+0.83 ± 0.17", f"{p:.3f}", "1, 2, 3"]


def test_only_searches_that_both_have_are_compared() -> None:
    first = rows((0, "a", 1.0), (0, "b", 9.0), (1, "a", 5.0))
    head, _, row, equal = cells(paired_table({"first": first, "one": rows((0, "a", 2.0)), "same": first}))
    assert head[0] == "compared with first"
    assert row == ["one", "1", "1", "2.00", "1.00", "+1.00", "", "0, 0, 1"]  # one seed has no error
    assert equal == ["same", "3", "2", "5.00", "5.00", "+0.00 ± 0.00", "", "0, 3, 0"]


def test_small_p_values_are_bounds() -> None:
    first = rows(*((seed, "a", 1.0) for seed in range(8)))
    other = rows(*((seed, "a", 3.0 + 0.01 * seed) for seed in range(8)))
    assert cells(paired_table({"first": first, "other": other}))[-1][-2] == "< 0.001"


class Truth:
    """Two networks whose true accuracies are drawn twice: they differ by 1 and by 3 points."""

    class estimates:
        draws = np.array([[50.0, 51.0], [50.0, 53.0]])

    @staticmethod
    def index(name: str) -> int:
        return "ab".index(name)


def test_the_noise_of_the_ground_truth_counts() -> None:
    first = [{**row, "architecture": "b"} for row in rows((0, "x", 0.0), (1, "x", 0.0))]
    other = [{**row, "architecture": "a"} for row in rows((0, "x", 1.0), (1, "x", 3.0))]
    found = paired(first, other, Truth())
    assert (found.difference, found.error, found.truth_error) == pytest.approx((2.0, 1.0, 1.0))
    # t is 2 / √2 with one degree of freedom, whose distribution is Cauchy's.
    assert found.p_value == pytest.approx(1 - 2 / math.pi * math.atan(math.sqrt(2)))
    assert cells(paired_table({"first": first, "other": other}, Truth()))[-1][5:7] == ["+2.00 ± 1.00", "1.00"]


def test_rank_correlation_is_with_true_accuracies() -> None:
    generator = np.random.default_rng(0)
    true = np.arange(30.0)
    draws = np.tile(true, (80, 1))
    draws[::2] += generator.normal(0, 5, (40, 30))
    values = generator.normal(0, 1, 30)
    used = draws[::2]
    expected = np.mean([spearmanr(values, one).statistic for one in used])
    assert true_spearman(values, Estimates(draws, 1.0, {}), np.arange(30)) == pytest.approx(expected)
