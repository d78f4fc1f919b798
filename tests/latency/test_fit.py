"""Tables fitted to whole networks, for synthetic devices with known costs and for public measurements."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls

from nni_proxyless.errors import InputError, LatencyTableError
from nni_proxyless.latency import LatencyTable, SpaceCosts
from nni_proxyless.latency.architectures_file import Measurements, read_measurements
from nni_proxyless.latency.fitting.encoding import Encoding
from nni_proxyless.latency.fitting.fit import fit_table
from nni_proxyless.latency.fitting.regression import regress, student_weights
from nni_proxyless.latency.fitting.similarity import kernels
from nni_proxyless.latency.fitting.suggest import how_many_more, learning_curve, suggest
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import table_of

NAMES = ("skip", "k3_e3", "k3_e6", "k5_e3", "k5_e6")


def device(seed: int, layers: int = 8) -> SpaceCosts:
    """Make the costs of a synthetic device. As on real devices, they depend on kernel size, expansion and layer."""
    draw = np.random.default_rng(seed)
    sizes, part = draw.uniform(0.3, 1.5, layers), draw.uniform(0.05, 0.2, 2)

    def cost(name: str, size: float) -> float:
        if name == "skip":
            return 0.0
        kernel, expansion = int(name[1]), int(name[4])
        return float(size * (part[0] * expansion + part[1] * expansion * kernel / 10) * draw.uniform(0.9, 1.1))

    labels = [f"layer{i}" for i in range(layers)]
    return SpaceCosts(
        1.0,
        dict.fromkeys(labels, NAMES),
        {label: tuple(cost(n, s) for n in NAMES) for label, s in zip(labels, sizes, strict=True)},
    )


def networks(count: int, seed: int, layers: int = 8) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(seed)
    return {f"layer{i}": draw.choice(np.array(NAMES), count) for i in range(layers)}


def measure(costs: SpaceCosts, count: int, seed: int, noise: float = 0.0) -> Measurements:
    columns = networks(count, seed, len(costs.layers))
    factor = 1 + noise * np.random.default_rng(seed + 1).standard_normal(count)
    return Measurements(columns, costs.of_many(columns) * factor)


def error(costs: SpaceCosts, true: SpaceCosts) -> float:
    columns = networks(500, 99, len(true.layers))
    return float(np.mean(np.abs(costs.of_many(columns) / true.of_many(columns) - 1)))


@pytest.mark.parametrize(("noise", "bound"), [(0.0, 0.001), (0.02, 0.01)])
def test_true_costs_are_recovered(noise: float, bound: float) -> None:
    true = device(0)
    fit = fit_table(measure(true, 300, 1, noise))
    assert error(fit.table.own_costs(), true) < bound
    assert fit.mean_relative_error == pytest.approx(0.8 * noise, abs=0.2 * noise + 0.001)  # E|N(0, 1)| = 0.8
    assert fit.warnings == ()
    assert fit.table.calibration.networks == 300
    assert fit.table.device.processor == "known by whole networks only"


def test_slow_moments_of_the_machine_hardly_count() -> None:
    true, measurements = device(0), measure(device(0), 200, 1, 0.01)
    slow = np.random.default_rng(5).random(200) < 0.1
    disturbed = Measurements(measurements.layers, measurements.latency_ms * np.where(slow, 1.5, 1.0))
    assert error(fit_table(disturbed).table.own_costs(), true) < 0.01


def test_fewer_networks_than_costs_are_fitted_with_a_warning() -> None:
    draw = np.random.default_rng(1)
    columns = {f"layer{i}": draw.permutation(np.repeat(NAMES, 5)) for i in range(8)}
    fit = fit_table(Measurements(columns, device(0).of_many(columns)))
    assert any("25 networks for 32 unknown costs" in warning for warning in fit.warnings)
    assert error(fit.table.own_costs(), device(0)) < 0.1  # the prior reads kernel sizes and expansions from the names


def test_noise_supports_no_table() -> None:
    columns = networks(40, 1)
    fit = fit_table(Measurements(columns, np.random.default_rng(2).uniform(5, 20, 40)))
    assert any("the data does not support a table" in warning for warning in fit.warnings)


def test_names_without_numbers_are_fitted() -> None:
    words = {"skip": "none", "k3_e3": "small", "k3_e6": "wide", "k5_e3": "long", "k5_e6": "large"}
    measurements = measure(device(0), 300, 1, 0.02)
    renamed = {label: np.array([words[name] for name in column]) for label, column in measurements.layers.items()}
    fit = fit_table(Measurements(renamed, measurements.latency_ms))
    predicted = fit.table.own_costs().of_many(renamed)
    assert np.mean(np.abs(predicted / device(0).of_many(measurements.layers) - 1)) < 0.012


def tables(seeds: range) -> list[LatencyTable]:
    return [fit_table(measure(device(seed), 300, seed), device=f"device {seed}").table for seed in seeds]


def test_a_mixture_of_devices_is_found_again() -> None:
    basis = tables(range(1, 5))
    costs = [table.own_costs() for table in basis]
    columns = networks(10, 7)
    mixed = 0.7 * costs[0].of_many(columns) + 0.3 * costs[2].of_many(columns)
    fit = fit_table(Measurements(columns, mixed), basis, device="new")
    test = networks(300, 8)
    truth = 0.7 * costs[0].of_many(test) + 0.3 * costs[2].of_many(test)
    np.testing.assert_allclose(fit.table.own_costs().of_many(test), truth, rtol=1e-3)
    assert set(fit.mixture) >= {"device 1", "device 3"}
    assert sum(share for name, share in fit.mixture.items() if name in ("device 1", "device 3")) > 0.99
    assert fit.residual is not None
    assert fit.residual < 1e-3


def test_what_no_device_of_the_basis_shows_is_left_to_the_residual() -> None:
    """On a device with one expensive candidate, fifty measurements and the residual beat a mixture without residual."""
    basis = tables(range(1, 4))
    true = device(1)
    odd = SpaceCosts(1.0, true.candidates, {k: (*v[:4], v[4] + 1.0) for k, v in true.layers.items()})
    measurements = measure(odd, 50, 3, 0.01)
    fit = fit_table(measurements, basis)
    assert fit.residual
    assert fit.residual > 0.01
    stacked = np.stack([t.own_costs().of_many(measurements.layers) for t in basis], axis=1)
    weights, _ = nnls(stacked, measurements.latency_ms)
    test = networks(500, 99)
    plain = np.stack([t.own_costs().of_many(test) for t in basis], axis=1) @ weights
    truth = odd.of_many(test)
    assert error(fit.table.own_costs(), odd) < 0.5 * np.mean(np.abs(plain / truth - 1))


def test_tables_measured_by_operator_are_a_basis(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    rows = list(itertools.islice(itertools.product(*(layer.names for layer in tiny_spec.layers)), 3, 80, 8))
    columns = {layer.label: np.array([row[i] for row in rows]) for i, layer in enumerate(tiny_spec.layers)}
    fit = fit_table(Measurements(columns, 2.0 * costs.of_many(columns)), [tiny_table], basis_costs=[costs])
    for choices in (dict(zip(columns, row, strict=True)) for row in rows):
        assert fit.table.own_costs().of(choices) == pytest.approx(2.0 * costs.of(choices))
        assert fit.table.costs(tiny_spec).of(choices) == pytest.approx(2.0 * costs.of(choices))


def test_residuals_left_out_are_those_of_fits_without_the_network() -> None:
    """Compare the closed form with explicit fits without one network each, with the same penalties and weights."""
    from nni_proxyless.latency.fitting.regression import _solve

    measurements = measure(device(0), 30, 1, 0.05)
    encoding = Encoding(measurements.candidates)
    features, y = encoding.features(measurements.layers), measurements.latency_ms
    covariance = sum(kernels(encoding.choices))
    precision = np.linspace(1, 3, 30)
    costs, intercept, left_out = _solve(features, y, precision, covariance)
    prior = features @ covariance @ features.T + 10.0
    full = prior @ np.linalg.solve(prior + np.diag(1 / precision), y)
    np.testing.assert_allclose(features @ costs + intercept, full, rtol=1e-6)
    for i in range(0, 30, 7):
        rest = np.arange(30) != i
        inner = prior[np.ix_(rest, rest)] + np.diag(1 / precision[rest])
        assert left_out[i] == pytest.approx(y[i] - prior[i, rest] @ np.linalg.solve(inner, y[rest]), rel=1e-5)


def test_gradient_of_the_left_out_error_against_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    from nni_proxyless.latency.fitting import regression

    checked = []

    def minimise(function: Any, start: Any, **_: Any) -> Any:
        _, gradient = function(start)
        for i in range(len(start)):
            step = np.zeros(len(start))
            step[i] = 1e-5
            numeric = (function(start + step)[0] - function(start - step)[0]) / 2e-5
            assert gradient[i] == pytest.approx(numeric, rel=1e-4, abs=1e-8)
            checked.append(i)
        return type("Found", (), {"x": start})

    monkeypatch.setattr(regression, "minimize", minimise)
    measurements = measure(device(0), 30, 1, 0.05)
    encoding = Encoding(measurements.candidates)
    regress(encoding.features(measurements.layers), measurements.latency_ms, kernels(encoding.choices)[:5])
    assert checked


def test_student_weights_by_hand() -> None:
    weights = student_weights(np.array([0.0, 1.0, -1.0, 10.0, -1.0]))
    sigma = 1.4826
    assert weights[0] == pytest.approx(5 / 4)
    assert weights[3] == pytest.approx(5 / (4 + (10 / sigma) ** 2))


def test_kernels_are_covariances() -> None:
    encoding = Encoding({"a": ("skip", "k3_e6"), "b": ("k5_e6", "plain")})
    for kernel in kernels(encoding.choices):
        np.testing.assert_allclose(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel).min() > -1e-9


def test_suggestions_complete_what_is_known() -> None:
    """Candidates that were never measured are suggested, and suggestions reduce the error more than random networks."""
    known = Measurements({f"layer{i}": np.array(["skip"] * 6) for i in range(8)}, np.full(6, 3.0))
    proposed = suggest(dict.fromkeys(known.layers, NAMES), 8, known)
    assert len({tuple(row.values()) for row in proposed}) == 8
    assert all(list(row.values()).count("skip") < 4 for row in proposed)

    def total_error(columns: dict[str, np.ndarray[Any, Any]]) -> float:
        return sum(
            error(fit_table(Measurements(columns, device(s).of_many(columns))).table.own_costs(), device(s))
            for s in range(3)
        )

    rows = suggest(dict.fromkeys(known.layers, NAMES), 30)
    chosen = {label: np.array([row[label] for row in rows]) for label in known.layers}
    assert total_error(chosen) < np.mean([total_error(networks(30, seed)) for seed in (20, 21, 22)])


def test_a_learning_curve_says_whether_more_would_help() -> None:
    encoding = Encoding(dict.fromkeys(networks(1, 0), NAMES))
    few = how_many_more(learning_curve(measure(device(0), 30, 1, 0.02), encoding, []))
    assert few.startswith("30 more measurements would take the error from")
    assert how_many_more([(100, 0.0201), (200, 0.02)]).startswith("more measurements would hardly help: 2.0 %")
    assert "would take the error from 4.0 % to about 3.0 %" in how_many_more([(50, 0.06), (100, 0.04)])


def test_bad_measurements_and_bases_are_refused(tiny_table: LatencyTable, tiny_spec: SpaceSpec) -> None:
    with pytest.raises(InputError, match="4 measurements are too few for a table: at least 5 with --basis"):
        fit_table(measure(device(0), 4, 1))
    (basis,) = tables(range(1, 2))
    with pytest.raises(
        LatencyTableError,
        match=r"basis table of device 1 \(fit\) is of another space than the measurements: layers missing",
    ):
        fit_table(measure(device(0, layers=9), 20, 1), [basis])
    wrong = measure(device(0), 20, 1)
    wrong.layers["layer0"][3] = "k7_e6"
    with pytest.raises(LatencyTableError, match="without the measured candidate"):
        fit_table(Measurements({k: v.astype(object) for k, v in wrong.layers.items()}, wrong.latency_ms), [basis])
    with pytest.raises(LatencyTableError, match="has entries for operators, not for layers: give its --space"):
        fit_table(measure(device(0), 20, 1), [table_of(tiny_spec)])


def test_read_measurements(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("first, second ,latency_ms\nk3,skip,1.5\n k5,NA,2e1\n")
    found = read_measurements(path)
    assert found.latency_ms.tolist() == [1.5, 20.0]
    assert {k: v.tolist() for k, v in found.layers.items()} == {"first": ["k3", "k5"], "second": ["skip", "NA"]}


def test_rows_of_one_network_are_one_measurement() -> None:
    """A network in several rows would be left out and known at the same time: the error would seem to be small."""
    columns, noise = networks(12, 3), np.random.default_rng(4)
    once = Measurements(columns, noise.uniform(5, 20, 12))
    repeated = once.rows(np.repeat(np.arange(12), 3))
    repeated.latency_ms[:] *= np.tile([0.9, 1.0, 1.3], 12)
    fits = [fit_table(once), fit_table(repeated)]
    assert [fit.networks for fit in fits] == [12, 12]
    assert fits[1].mean_relative_error == pytest.approx(fits[0].mean_relative_error)
    with pytest.raises(InputError, match="2 measurements of different networks, in 8 rows, are too few"):
        fit_table(once.rows([0, 1] * 4))


def test_a_latency_in_another_unit_is_named() -> None:
    measurements = measure(device(0), 60, 1, 0.01)
    measurements.latency_ms[7] *= 1000
    (warning,) = (text for text in fit_table(measurements).warnings if "do not fit the others" in text)
    expected = rf"1 of 60 latencies .*: {measurements.latency_ms[7]:.4g} ms where about [\d.]+ ms are expected"
    assert re.match(expected, warning)


def test_a_table_of_further_layers_is_refused(tiny_spec: SpaceSpec) -> None:
    draw = np.random.default_rng(0)
    columns = {layer.label: draw.choice(np.array(layer.names), 80) for layer in tiny_spec.layers}
    times = draw.uniform(5, 6, 80)
    assert fit_table(Measurements(columns, times)).table.costs(tiny_spec)
    further = Measurements({**columns, "phone": np.where(np.arange(80) % 2, "new", "old")}, times)
    with pytest.raises(LatencyTableError, match=r"layers that space .* does not have: phone"):
        fit_table(further).table.costs(tiny_spec)


def test_no_network_is_suggested_twice_or_after_its_measurement() -> None:
    candidates = {"a": ("x", "y", "z"), "b": ("x", "y", "z", "u"), "c": ("x", "y")}
    rows = suggest(candidates, 24)
    assert len({tuple(row.values()) for row in rows}) == 24
    known = Measurements({label: np.array([row[label] for row in rows[:20]]) for label in candidates}, np.ones(20))
    more = suggest(candidates, 4, known)
    assert {tuple(row.values()) for row in more} == {tuple(row.values()) for row in rows[20:]}
    with pytest.raises(InputError, match="5 networks were asked for, but there are only 4 that are not measured yet"):
        suggest(candidates, 5, known)
    twice = {label: np.array([rows[0][label], rows[1][label], rows[0][label]]) for label in candidates}
    with pytest.raises(InputError, match="3 networks were asked for, but there are only 2 to choose from"):
        suggest(candidates, 3, pool=twice)


def test_a_large_space_is_sampled() -> None:
    rows = suggest({f"layer{i}": NAMES for i in range(8)}, 30)
    assert len({tuple(row.values()) for row in rows}) == 30
