"""What candidates compute, and fits that use it: counts by hand, exact recovery, closed forms, public devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls

from nni_proxyless.errors import InputError
from nni_proxyless.latency import Choice, SpaceCosts
from nni_proxyless.latency.architectures_file import Measurements
from nni_proxyless.latency.counts import Counts, counts_of_space, read_counts
from nni_proxyless.latency.fitting import blend as blending
from nni_proxyless.latency.fitting.encoding import Encoding
from nni_proxyless.latency.fitting.few_shot import Quantities, blend
from nni_proxyless.latency.fitting.fit import fit_table
from nni_proxyless.latency.fitting.similarity import residual_prior
from nni_proxyless.latency.fitting.suggest import suggest
from nni_proxyless.network.space_spec import SpaceSpec

NAMES = ("skip", "small", "wide", "long")
LAYERS = [f"layer{i}" for i in range(10)]
COLUMNS = ("macs", "activations", "blocks")


def counts(seed: int = 0, fixed: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Counts:
    draw = np.random.default_rng(seed)
    values = {
        Choice(label, name): (0.0, 0.0, 0.0) if name == "skip" else (*draw.uniform(1e5, 1e7, 2).tolist(), 1.0)
        for label in LAYERS
        for name in NAMES
    }
    return Counts(COLUMNS, values, fixed, "the made-up counts")


def networks(number: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(seed)
    return {label: draw.choice(np.array(NAMES), number) for label in LAYERS}


def linear_device(of: Counts, weights: tuple[float, ...], fixed: float) -> SpaceCosts:
    """Make a device whose latency is a combination of counts."""
    return SpaceCosts(
        fixed,
        dict.fromkeys(LAYERS, NAMES),
        {k: tuple(float(np.dot(weights, of.values[Choice(k, name)])) for name in NAMES) for k in LAYERS},
    )


def test_counts_of_a_layer_by_hand() -> None:
    """Layer 2 of stage 1 of the paper's space: 24 channels of 56 x 56 pixels, stride 1."""
    spec = SpaceSpec.from_yaml("mobilenetv2_imagenet")
    found = counts_of_space(spec)
    layer = spec.layers[1]
    operator = layer.candidates["k5_e3"]
    assert operator is not None
    assert operator.input_shape == operator.output_shape == (24, 56, 56)
    pixels, hidden = 56 * 56, 72
    by_hand = {
        "pointwise_macs": 2 * 24 * hidden * pixels,
        "depthwise5_macs": hidden * 25 * pixels,
        "parameters": (24 * hidden + 2 * hidden) + (hidden * 25 + 2 * hidden) + (hidden * 24 + 2 * 24),
        "activations": (hidden + hidden + 24) * pixels,
        "convolutions": 3,
        "blocks": 1,
    }
    values = dict(zip(found.columns, found.values[Choice(layer.label, "k5_e3")], strict=True))
    assert {name: value for name, value in values.items() if value} == by_hand
    assert found.values[Choice(layer.label, "skip")] == (0.0,) * len(found.columns)
    fixed = dict(zip(found.columns, found.fixed, strict=True))
    assert fixed["convolution_macs"] == spec.stem.multiply_adds
    assert fixed["linear_macs"] == spec.classifier.multiply_adds
    assert fixed["convolutions"] == 1 + 2 + 1 + 1  # stem, first block without expansion, head, classifier


def test_multiply_adds_and_parameters_of_a_space_are_those_of_its_operators(tiny_spec: SpaceSpec) -> None:
    found = counts_of_space(tiny_spec)
    macs = [name.endswith("_macs") for name in found.columns]
    for layer in tiny_spec.layers:
        for name, operator in layer.candidates.items():
            row = np.array(found.values[Choice(layer.label, name)])
            assert row[macs].sum() == (operator.multiply_adds if operator else 0)
            assert row[found.columns.index("parameters")] == (operator.parameters if operator else 0)


def test_read_counts(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("layer,candidate,stride,in_channels,macs,blocks\na,k3,2,8,1.5e6,1\na,skip,1,8,0,0\n")
    found = read_counts(path)
    assert found.columns == ("macs", "blocks")  # a stride or a width is no count
    assert found.values == {Choice("a", "k3"): (1.5e6, 1.0), Choice("a", "skip"): (0.0, 0.0)}
    assert found.candidates == {"a": ("k3", "skip")}
    with pytest.raises(InputError, match="lack k5 in a, k3 in b: give a row for each candidate"):
        found.of_choices([Choice("a", "k3"), Choice("a", "k5"), Choice("b", "k3")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer,macs\na,1\n", "have no column 'candidate'; the columns are layer, macs"),
        ("layer,candidate,stride\na,k3,1\n", "have no column of counts besides layer and candidate"),
        ("layer,candidate,macs\na,k3,many\n", "macs must be a number from 0, got 'many' in line 2; remove the column"),
        ("layer,candidate,macs\na,k3,1\na,k5,-2\n", "macs must be a number from 0, got '-2' in line 3"),
        ("layer,candidate,macs\na,k3,inf\n", "got 'inf' in line 2"),
        ("layer,candidate,macs\na,k3,1\na,k3,2\n", "line 3 is a second row for candidate k3 in a"),
        ("layer,candidate,macs\na,k3,\n", "column 'macs' is empty in line 2"),
    ],
)
def test_bad_counts(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_counts(path)


def test_counts_of_other_layers_are_refused() -> None:
    of, columns = counts(), networks(12, 0)
    latency_ms = linear_device(of, (1e-6, 1e-7, 0.1), 1.0).of_many(columns)
    more = Measurements({**columns, "layer10": columns["layer0"]}, latency_ms)
    with pytest.raises(InputError, match=r"another space than the measurements: layers missing \['layer10'\]"):
        fit_table(more, counts=of)
    columns["layer3"] = np.where(np.arange(12) == 4, "huge", columns["layer3"])
    with pytest.raises(InputError, match=r"without the measured candidate.*huge of layer layer3"):
        fit_table(Measurements(columns, latency_ms), counts=of)


@pytest.mark.parametrize("fixed", [(0.0, 0.0, 0.0), (5e6, 3e6, 4.0)])
def test_a_device_whose_latency_is_a_combination_of_counts_is_found(fixed: tuple[float, ...]) -> None:
    """Twelve networks without noise are enough for 40 costs, candidates that were never measured included."""
    of = counts(fixed=fixed)
    true = linear_device(of, (1e-6, 2e-7, 0.3), 2.0 + float(np.dot((1e-6, 2e-7, 0.3), fixed)))
    columns = networks(12, 1)
    fit = fit_table(Measurements(columns, true.of_many(columns)), counts=of)
    test = networks(300, 2)
    np.testing.assert_allclose(fit.table.own_costs().of_many(test), true.of_many(test), rtol=2e-3)
    assert set(fit.counts) == set(COLUMNS)
    assert fit.mixture == {}
    assert fit.table.own_costs().candidates == dict.fromkeys(LAYERS, NAMES)
    assert fit.table.source == "fitted to 12 whole networks on a basis of counts of operations"


def test_basis_and_counts_share_the_latency() -> None:
    """A device is the sum of a known device and of a cost of each block, which the known one does not have."""
    of = counts()
    known = linear_device(counts(7), (1e-6, 2e-7, 0.0), 1.0)
    basis = fit_table(Measurements(networks(200, 3), known.of_many(networks(200, 3))), device="known").table
    costs = basis.own_costs()
    columns, test = networks(15, 1), networks(300, 2)

    def latency(layers: dict[str, Any]) -> Any:
        return 2.0 * costs.of_many(layers) + 0.5 * sum(layers[label] != "skip" for label in LAYERS)

    fit = fit_table(Measurements(columns, latency(columns)), [basis], counts=of)
    np.testing.assert_allclose(fit.table.own_costs().of_many(test), latency(test), rtol=5e-3)
    mean = latency(columns).mean()
    assert fit.mixture["known"] == pytest.approx(2.0 * costs.of_many(columns).mean() / mean, abs=0.03)
    assert fit.counts["blocks"] == pytest.approx(1.0 - fit.mixture["known"], abs=0.03)


def test_counts_hardly_spoil_the_fit_of_a_device_that_the_basis_spans() -> None:
    """Ten noisy networks of a device that is twice a known one, ten times: without counts the fit is ideal."""
    of = counts()
    true = linear_device(counts(7), (1e-6, 2e-7, 0.0), 1.0)
    basis = fit_table(Measurements(networks(200, 3), true.of_many(networks(200, 3))), device="known").table
    test = networks(300, 2)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for draw in range(10):
        columns = networks(10, 20 + draw)
        noise = 1.0 + 0.015 * np.random.default_rng(draw).standard_normal(10)
        given = Measurements(columns, 2.0 * true.of_many(columns) * noise)
        for counted, found in errors.items():
            costs = fit_table(given, [basis], counts=of if counted else None).table.own_costs()
            found.append(float(np.mean(np.abs(costs.of_many(test) / (2.0 * true.of_many(test)) - 1.0))))
    assert np.mean(errors[True]) < 1.1 * np.mean(errors[False])


def problem(noise: float, number: int = 14) -> tuple[Any, ...]:
    encoding = Encoding(dict.fromkeys(LAYERS, NAMES))
    draw = np.random.default_rng(5)
    quantities = Quantities(draw.uniform(0, 1, (40, 3)), np.array([1.0, 2.0, 0.5]), 3)
    features = encoding.features(networks(number, 4))
    totals = features @ quantities.of_choices + quantities.fixed
    latency_ms = totals @ [0.5, 0.0, 2.0] * (1 + noise * draw.standard_normal(number))
    return encoding, quantities, features, totals, latency_ms


def test_a_basis_alone_gives_the_weights_of_scipy() -> None:
    encoding, quantities, features, totals, latency_ms = problem(0.0)
    found = blend(features, latency_ms, quantities, residual_prior(encoding.choices), encoding.covariance())
    weights, _ = nnls(totals, latency_ms)
    np.testing.assert_allclose(found.shares, weights * totals.mean(axis=0) / latency_ms.mean(), atol=2e-3)
    np.testing.assert_allclose(features @ found.costs + found.intercept, latency_ms, rtol=1e-3)


@pytest.mark.parametrize("residual", [0.0, 1.0])
def test_posterior_and_left_out_variances_against_brute_force(residual: float) -> None:
    """The posterior is that of Bayesian regression on all costs, and a network left out has that of the others."""
    encoding, quantities, features, totals, latency_ms = problem(0.03)
    relative = latency_ms / np.median(latency_ms)
    design = np.column_stack([features, np.ones(len(features))])
    prior = np.pad(residual_prior(encoding.choices), (0, 1))
    part = np.vstack([quantities.of_choices, quantities.fixed])
    setting = blending._Setting(
        np.arange(3), part, totals, np.array([0.1, 1.0, 10.0]), design @ prior @ design.T, residual
    )
    fitted = blending._fit(setting, relative)
    covariance, variances = blending._posterior(fitted, relative, design, prior)
    active = fitted.weights > 0
    before = part[:, active] @ np.diag(1.0 / setting.strengths[active]) @ part[:, active].T + residual * prior
    noise = np.diag(1.0 / fitted.precision)

    def posterior(rows: Any) -> Any:
        some = design[rows]
        inner = some @ before @ some.T + noise[np.ix_(rows, rows)]
        return before - before @ some.T @ np.linalg.solve(inner, some @ before)

    everything = np.arange(len(relative))
    np.testing.assert_allclose(covariance, posterior(everything), atol=1e-6 * np.abs(before).max())
    for i in (0, 5, 11):
        expected = design[i] @ posterior(np.delete(everything, i)) @ design[i] + relative[i] ** 2
        assert variances[i] == pytest.approx(expected, rel=1e-5)


def test_predictions_of_networks_left_out_are_those_of_fits_without_them() -> None:
    """With fixed weights of the networks, the fit without a network minimises the loss of all others."""
    encoding, quantities, features, totals, latency_ms = problem(0.03)
    relative = latency_ms / np.median(latency_ms)
    gram = features @ residual_prior(encoding.choices) @ features.T
    strengths = np.array([0.1, 1.0, 10.0])
    part = np.vstack([quantities.of_choices, quantities.fixed])
    fitted = blending._fit(blending._Setting(np.arange(3), part, totals, strengths, gram, 0.0), relative)
    for i in (0, 5, 11):
        rest = np.arange(len(relative)) != i
        root = np.sqrt(fitted.precision[rest])
        rows = np.vstack([totals[rest] * root[:, None], np.diag(np.sqrt(strengths))])
        weights, _ = nnls(rows, np.append(relative[rest] * root, np.zeros(3)))
        assert fitted.left_out[i] == pytest.approx(1.0 - totals[i] @ weights / relative[i], rel=1e-8)


def test_suggested_networks_need_no_measurement_and_know_the_basis() -> None:
    of = counts()
    candidates = dict.fromkeys(LAYERS, NAMES)
    rows = suggest(candidates, 8, counts=of)
    assert len({tuple(row.values()) for row in rows}) == 8
    pool = networks(5, 3)
    among = suggest(candidates, 5, counts=of, pool=pool)
    assert {tuple(row.values()) for row in among} == set(
        zip(*(column.tolist() for column in pool.values()), strict=True)
    )
    with pytest.raises(InputError, match="6 networks were asked for, but there are only 5 to choose from"):
        suggest(candidates, 6, counts=of, pool=pool)


def test_twelve_suggested_networks_beat_twelve_random_ones() -> None:
    of = counts()
    candidates = dict.fromkeys(LAYERS, NAMES)
    test = networks(300, 50)

    def error(columns: dict[str, Any], seed: int) -> float:
        draw = np.random.default_rng(seed)
        true = linear_device(of, tuple((draw.uniform(0, 1, 3) * [1e-6, 1e-6, 1.0]).tolist()), 1.0)
        noisy = true.of_many(columns) * (1 + 0.05 * draw.standard_normal(12))
        fit = fit_table(Measurements(columns, noisy), counts=of)
        return float(np.mean(np.abs(fit.table.own_costs().of_many(test) / true.of_many(test) - 1)))

    rows = suggest(candidates, 12, counts=of)
    chosen = {label: np.array([row[label] for row in rows]) for label in LAYERS}
    seeds = range(8)
    assert np.mean([error(chosen, s) for s in seeds]) < np.mean([error(networks(12, 60 + s), s) for s in seeds])


def test_counts_that_tell_nothing_leave_the_fit_to_the_names() -> None:
    """Counts are 0: the constant and the residual remain."""
    nothing = Counts(COLUMNS, dict.fromkeys(counts().values, (0.0, 0.0, 0.0)), (0.0, 0.0, 0.0), "the counts")
    columns = networks(30, 1)
    true = linear_device(counts(), (1e-6, 1e-7, 0.3), 1.0)
    fit = fit_table(Measurements(columns, true.of_many(columns)), counts=nothing)
    assert fit.counts == {}
    assert fit.spearman > 0.3
    names = ("x", "y", "z", "u", "v")
    zero = Counts(("macs",), {Choice("a", name): (0.0,) for name in names}, (0.0,), "the counts")
    alone = fit_table(Measurements({"a": np.array(names)}, np.array([2.0, 2.1, 1.9, 2.0, 2.0])), counts=zero)
    assert alone.table.own_costs().of({"a": "x"}) == pytest.approx(2.0, rel=0.05)
