"""Standard deviations of predictions: by hand, in files, their coverage on simulated devices, doubtful networks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_proxyless.errors import InputError, LatencyTableError
from nni_proxyless.latency import Calibration, Choice, LatencyTable
from nni_proxyless.latency.architectures_file import ArchitectureFile, Measurements
from nni_proxyless.latency.doubtful import doubtful, doubts, probability_above, uncertainty_of
from nni_proxyless.latency.fitting.encoding import Encoding
from nni_proxyless.latency.fitting.factor import low_rank
from nni_proxyless.latency.fitting.fit import fit_table
from nni_proxyless.latency.fitting.regression import _posterior
from nni_proxyless.latency.predict import predict_std
from nni_proxyless.latency.uncertainty import Uncertainty
from tests.helpers import made_up_table
from tests.latency.test_counts import LAYERS, counts, linear_device, networks

KNOWN = Uncertainty(
    0.1,
    (0.5, 0.0),
    {Choice("a", "x"): (0.5, 2.0), Choice("a", "y"): (0.0, 1.0), Choice("b", "x"): (2.0, 0.0)},
)


def made_up() -> LatencyTable:
    """Make a table on which x in a, x in b takes 10 ms, with a standard deviation of sqrt(9 + 4 + 1) ms."""
    table = made_up_table(
        {Choice("a", "x"): 3.0, Choice("a", "y"): 1.0, Choice("b", "x"): 2.0}, Calibration(1.0, 5.0), "none"
    )
    return replace(table, uncertainty=KNOWN)


def test_standard_deviations_by_hand() -> None:
    table, columns = made_up(), {"a": np.array(["x", "y"]), "b": np.array(["x", "x"])}
    predicted = table.own_costs().of_many(columns)
    assert predicted.tolist() == [10.0, 8.0]
    expected = [math.sqrt(3.0**2 + 2.0**2 + 1.0), math.sqrt(2.5**2 + 1.0 + 0.8**2)]
    assert predict_std(table, ArchitectureFile(columns), predicted).tolist() == pytest.approx(expected)
    half = ArchitectureFile({}, [{"a": {"x": 0.5, "y": 0.5}, "b": {"x": 1.0}}])
    assert predict_std(table, half, np.array([9.0])).tolist() == pytest.approx([math.sqrt(2.75**2 + 1.5**2 + 0.81)])


def test_files_with_and_without_uncertainty(tmp_path: Path) -> None:
    table = made_up()
    assert LatencyTable.load(table.save(tmp_path / "t.yml")) == table
    without = replace(table, uncertainty=None)
    assert "uncertainty" not in without.to_dict()
    with pytest.raises(InputError, match=r"table of made up \(torch\) has no standard deviations"):
        uncertainty_of(without)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": -1}, "uncertainty.noise must be a number from 0, got -1"),
        ({"noise": None}, "uncertainty.noise must be a number from 0, got None"),
        ({"choices_ms": ["1 2"]}, "must have a row for each of 3 choices, got 1 rows"),
        ({"choices_ms": 3}, "must have a row for each of 3 choices, got 3"),
        ({"fixed_ms": "1 nan"}, "each row must be a string of finite numbers, got '1 nan'"),
        ({"fixed_ms": [1, 2]}, "each row must be a string of finite numbers"),
        ({"fixed_ms": "1"}, "all rows must have 1 numbers"),
    ],
)
def test_damaged_uncertainties_are_refused(change: dict[str, Any], message: str) -> None:
    content = made_up().to_dict()
    content["uncertainty"] = {**content["uncertainty"], **change}
    with pytest.raises(LatencyTableError, match=message):
        LatencyTable.from_dict(content)
    with pytest.raises(LatencyTableError, match="uncertainty must be a mapping, got 'x'"):
        LatencyTable.from_dict({**content, "uncertainty": "x"})


@pytest.mark.parametrize(("budget_ms", "above"), [(10.0, 0.5), (10.0 + 1.959964 * math.sqrt(14.0), 0.025)])
def test_probability_to_exceed_a_budget(budget_ms: float, above: float) -> None:
    (found,) = doubts(made_up(), [{"a": "x", "b": "x"}], budget_ms)
    assert found.above == pytest.approx(above, abs=1e-6)
    assert found.doubtful == (above == 0.5)
    assert (probability_above(1.0, 2.0, 0.0), probability_above(2.0, 1.0, 0.0)) == (1.0, 0.0)


def test_doubtful_networks_are_named_those_with_even_odds_first() -> None:
    architectures = [{"a": "x", "b": "x"}, {"a": "y", "b": "x"}]  # 10 +- 3.7 ms and 8 +- 2.8 ms
    assert doubtful(made_up(), architectures, 8.1) == [1, 0]
    assert doubtful(made_up(), architectures, 14.0) == [0]
    assert doubtful(made_up(), architectures, 30.0) == []
    assert doubtful(made_up(), [], 30.0) == []
    with pytest.raises(InputError, match="lacks layer b"):
        doubts(made_up(), [{"a": "x"}], 10.0)


@pytest.mark.parametrize("rank", [3, 30])
def test_a_covariance_is_kept_up_to_a_factor_of_low_rank(rank: int) -> None:
    """A covariance of low rank is kept as it is, and of any other the mean variance over random networks."""
    encoding = Encoding(dict.fromkeys(LAYERS, ("skip", "small", "wide", "long")))
    factor = np.random.default_rng(0).standard_normal((41, rank))
    covariance = factor @ factor.T
    columns = networks(4000, 1)
    design = np.column_stack([encoding.features(columns), np.ones(4000)])
    exact = np.einsum("ij,jk,ik->i", design, covariance, design)
    found = low_rank(covariance, 0.0, encoding).std(columns, np.zeros(4000)) ** 2
    assert found.mean() == pytest.approx(exact.mean(), rel=0.03)
    if rank == 3:
        np.testing.assert_allclose(found, exact, rtol=0.05, atol=0.05 * exact.mean())


def test_posterior_of_the_regression_against_the_kernel_formula() -> None:
    encoding = Encoding(dict.fromkeys(LAYERS, ("skip", "small", "wide", "long")))
    features = encoding.features(networks(25, 1))
    covariance, precision = np.diag(np.linspace(0.5, 2.0, 40)), np.linspace(1.0, 3.0, 25)
    design, before = np.column_stack([features, np.ones(25)]), np.pad(covariance, (0, 1))
    before[-1, -1] = 10.0
    inner = design @ before @ design.T + np.diag(1.0 / precision)
    expected = before - before @ design.T @ np.linalg.solve(inner, design @ before)
    np.testing.assert_allclose(_posterior(features, precision, covariance), expected, atol=1e-8)


@pytest.mark.parametrize(("number", "use_counts"), [(12, True), (40, True), (150, False)])
def test_intervals_of_simulated_devices_cover_what_they_say(number: int, use_counts: bool) -> None:
    """Devices are exactly linear in the counts, with 4 % noise. New measurements of new networks test the intervals."""
    of = counts()
    inside = []
    for seed in range(20 if number == 12 else 6):
        draw = np.random.default_rng(seed)
        true = linear_device(of, tuple((draw.uniform(0.2, 1, 3) * [1e-6, 1e-6, 1.0]).tolist()), 1.0)
        columns, test = networks(number, 100 + seed), networks(300, 200 + seed)
        noisy = true.of_many(columns) * (1 + 0.04 * draw.standard_normal(number))
        table = fit_table(Measurements(columns, noisy), counts=of if use_counts else None).table
        again = true.of_many(test) * (1 + 0.04 * draw.standard_normal(300))
        predicted = table.own_costs().of_many(test)
        inside.append(np.abs(again - predicted) / uncertainty_of(table).std(test, predicted))
    misses = np.array(inside)
    assert 0.60 < np.mean(misses < 0.9945) < 0.78  # nominal 0.68
    assert 0.90 < np.mean(misses < 1.96) < 0.985  # nominal 0.95
