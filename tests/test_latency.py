"""Tables against hand-made sums and finite differences; measuring against a synthetic device."""

from __future__ import annotations

import itertools
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from nni_proxyless.errors import InputError, LatencyTableError, MissingOperatorError, RunError
from nni_proxyless.latency import (
    BACKENDS,
    Backend,
    LatencyTable,
    Protocol,
    Samples,
    fit_calibration,
    make_backend,
    measure_isolated,
    measure_table,
    measure_table_isolated,
    random_architecture,
    time_interleaved,
)
from nni_proxyless.space_spec import SpaceSpec

from .test_gates import finite_difference

SHORT = Protocol(warmup_s=0.001, settle_s=0.0, sample_s=0.0005, min_rounds=3, max_rounds=4)


def test_latency_of_every_network_is_the_sum_by_hand(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    for picks in itertools.product(*(layer.names for layer in tiny_spec.layers)):
        choices = {layer.label: name for layer, name in zip(tiny_spec.layers, picks, strict=True)}
        entries = [tiny_table.operators[op].latency_ms for op in tiny_spec.operators(choices)]
        assert costs.latency_ms(choices) == pytest.approx(2.0 * sum(entries) + 0.5)


def test_expectation_is_the_mean_over_all_networks(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    probs = {k: torch.softmax(torch.randn(len(v), dtype=torch.float64), 0) for k, v in costs.layers_ms.items()}
    mean = 0.0
    for picks in itertools.product(*(range(len(layer.names)) for layer in tiny_spec.layers)):
        choices = {layer.label: layer.names[i] for layer, i in zip(tiny_spec.layers, picks, strict=True)}
        weight = math.prod(float(probs[layer.label][i]) for layer, i in zip(tiny_spec.layers, picks, strict=True))
        mean += weight * costs.latency_ms(choices)
    assert float(costs.expected_latency_ms(probs)) == pytest.approx(mean)


def test_gradient_of_expected_latency_against_finite_differences(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    costs = tiny_table.costs(tiny_spec)
    fixed = {k: torch.randn(len(v), dtype=torch.float64) for k, v in costs.layers_ms.items()}
    for label, alpha in fixed.items():
        leaves = {k: a.clone().requires_grad_() for k, a in fixed.items()}
        costs.expected_latency_ms({k: torch.softmax(a, 0) for k, a in leaves.items()}).backward()

        def expected(a: torch.Tensor, label: str = label) -> torch.Tensor:
            return costs.expected_latency_ms({k: torch.softmax(v, 0) for k, v in {**fixed, label: a}.items()})

        gradient = leaves[label].grad
        torch.testing.assert_close(gradient, finite_difference(expected, alpha), rtol=1e-6, atol=1e-8)
        assert float(gradient.abs().max()) > 1e-3


def test_smallest_and_largest(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    everything = [
        costs.latency_ms({layer.label: name for layer, name in zip(tiny_spec.layers, picks, strict=True)})
        for picks in itertools.product(*(layer.names for layer in tiny_spec.layers))
    ]
    assert costs.smallest_ms == pytest.approx(min(everything))
    assert costs.largest_ms == pytest.approx(max(everything))
    with pytest.raises(InputError, match="layer stage1_layer1"):
        costs.latency_ms({"stage1_layer1": "nothing"})


def test_missing_operators_are_all_listed(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    left_out = list(tiny_table.operators)[3:5]
    table = replace(tiny_table, operators={k: v for k, v in tiny_table.operators.items() if k not in left_out})
    with pytest.raises(MissingOperatorError) as error:
        table.costs(tiny_spec)
    assert "lacks 2 operator(s)" in str(error.value)
    assert all(str(operator) in str(error.value) for operator in left_out)


def test_round_trip_is_lossless(tiny_table: LatencyTable, tmp_path: Path) -> None:
    assert LatencyTable.load(tiny_table.save(tmp_path / "t.yml")) == tiny_table


def test_file_follows_the_schema(tiny_table: LatencyTable, tmp_path: Path) -> None:
    content = yaml.safe_load(tiny_table.save(tmp_path / "t.yml").read_text())
    assert content["schema"] == "nni-proxyless/latency-table@1"
    assert content["unit"] == "ms"
    assert set(content["device"]) == {"name", "processor", "cores"}
    assert set(content["calibration"]) == {"scale", "offset_ms", "networks", "mean_relative_error"}
    assert set(content["operators"][0]) == {
        "kind", "input", "output", "kernel", "expansion", "stride", "latency_ms", "spread_ms", "runs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other@1"}, "schema must be"),
        ({"unit": "us"}, "unit must be 'ms'"),
        ({"operators": []}, "non-empty list"),
        ({"operators": [3]}, "operator 1 must be a mapping"),
        ({"device": "phone"}, "device must be a mapping"),
        ({"threads": 0}, "threads must be a whole number from 1"),
    ],
)
def test_bad_tables_are_refused(tiny_table: LatencyTable, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LatencyTableError, match=message):
        LatencyTable.from_dict({**tiny_table.to_dict(), **change})


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "fast", None, True])
def test_impossible_latencies_are_refused(tiny_table: LatencyTable, value: object) -> None:
    content = tiny_table.to_dict()
    content["operators"][2]["latency_ms"] = value
    with pytest.raises(LatencyTableError, match="operator 3"):
        LatencyTable.from_dict(content)


def test_doubled_operators_are_refused(tiny_table: LatencyTable) -> None:
    content = tiny_table.to_dict()
    content["operators"].append(content["operators"][0])
    with pytest.raises(LatencyTableError, match="stands twice"):
        LatencyTable.from_dict(content)


def test_calibration_recovers_scale_and_offset() -> None:
    sums = [1.0, 2.0, 3.5, 5.0]
    found = fit_calibration(sums, [0.8 * s + 0.3 for s in sums])
    assert found.scale == pytest.approx(0.8)
    assert found.offset_ms == pytest.approx(0.3)
    assert found.networks == 4
    assert found.mean_relative_error == pytest.approx(0.0, abs=1e-12)


def test_calibration_leaves_out_an_offset_that_fits_noise() -> None:
    noise = [1.02, 0.985, 1.01, 0.99, 1.015, 0.98]
    found = fit_calibration([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.3 * (i + 1) * n for i, n in enumerate(noise)])
    assert found.offset_ms == 0.0
    assert found.scale == pytest.approx(1.3, rel=0.02)


def test_calibration_never_makes_small_networks_negative() -> None:
    found = fit_calibration([1.0, 1.2, 1.5, 4.0], [0.001, 0.3, 0.7, 4.0])
    assert found.scale * 1.0 + found.offset_ms > 0
    single = fit_calibration([2.0], [3.0])
    assert (single.scale, single.offset_ms) == (pytest.approx(1.5), 0.0)


def test_samples_by_hand() -> None:
    samples = Samples((1.0, 2.0, 3.0, 4.0, 100.0))
    assert samples.median_ms == 3.0
    assert samples.spread_ms == pytest.approx(1.2533 * (4.0 - 2.0) / 1.349 / math.sqrt(5))


class SyntheticBackend(Backend):
    """A device on which an operator takes a known time, and a network the sum of its operators and a constant.

    Time is counted, not spent: `perf_counter` is replaced by the device's clock.
    """

    name = "synthetic"
    version = "1"

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.now = 0.0
        self._noise = random.Random(1)
        self._spread = noise

    def cost_ms(self, module: nn.Module) -> float:
        parameters = sum(p.numel() for p in module.parameters())
        return 0.02 + 0.001 * parameters if parameters else 0.0

    def prepare(self, module: nn.Module, input_shape: tuple[int, int, int]) -> Any:
        call_ms = 0.005
        if hasattr(module, "blocks"):
            parts = [module.stem, *module.blocks, module.head, module.classifier]
            cost = 0.7 * sum(self.cost_ms(part) for part in parts) + 0.1 + call_ms
        else:
            cost = self.cost_ms(module) + call_ms

        def run() -> None:
            self.now += cost * (1 + self._spread * abs(self._noise.gauss(0, 1))) / 1000

        return run


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_synthetic_device_is_recovered(noise: float, tiny_spec: SpaceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SyntheticBackend(noise)
    monkeypatch.setattr(time, "perf_counter", lambda: backend.now)
    table = measure_table(tiny_spec, backend)
    bound = 3 * noise + 1e-6
    for operator, entry in table.operators.items():
        assert entry.latency_ms == pytest.approx(backend.cost_ms(operator.build()), rel=bound)
    assert table.call_overhead_ms == pytest.approx(0.005, rel=bound)
    costs = table.costs(tiny_spec)
    for seed in range(5):
        architecture = random_architecture(tiny_spec, random.Random(seed))
        parts = [op.build() for op in architecture.operators()]
        true = 0.7 * sum(backend.cost_ms(part) for part in parts) + 0.1 + 0.005
        assert costs.latency_ms(architecture.choices) == pytest.approx(true, rel=bound)


def test_runners_are_interleaved() -> None:
    order: list[int] = []
    runners = [lambda i=i: order.append(i) for i in range(3)]
    samples = time_interleaved(runners, replace(SHORT, warmup_s=0.0, settle_s=0.0, sample_s=0.0))
    assert [len(s.milliseconds) for s in samples] == [4, 4, 4]
    timed = order[-4 * 3 * 2 :]  # the last four rounds: each runner once to warm up and once to be timed
    rounds = [timed[i : i + 6] for i in range(0, len(timed), 6)]
    assert all(sorted(r) == [0, 0, 1, 1, 2, 2] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_measures_a_space(name: str, tiny_spec: SpaceSpec) -> None:
    backend = make_backend(name, threads=1)
    table = measure_table(tiny_spec, backend, calibration_networks=3, protocol=SHORT, network_protocol=SHORT)
    assert set(table.operators) == set(tiny_spec.distinct_operators())
    assert LatencyTable.from_dict(table.to_dict()) == table
    assert table.calibration.networks == 3
    assert table.backend == name
    assert table.costs(tiny_spec).smallest_ms > 0


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_computes_the_network(name: str, tiny_spec: SpaceSpec) -> None:
    """What is timed is the network itself: right output on its own input, no wrapped no-op."""
    network = random_architecture(tiny_spec, random.Random(2)).build()
    output = make_backend(name, batch=3).prepare(network, tiny_spec.input_shape)()
    value = output if isinstance(output, torch.Tensor) else torch.from_numpy(output[0])
    assert value.shape == (3, 3)
    assert torch.isfinite(value).all()


def test_backend_arguments_are_checked() -> None:
    with pytest.raises(InputError, match=r"unknown latency backend 'onxruntime'; did you mean 'onnxruntime'\?"):
        make_backend("onxruntime")
    with pytest.raises(InputError, match="threads must be a whole number from 1, got 0"):
        make_backend("torch", threads=0)
    with pytest.raises(InputError, match="batch must be a whole number"):
        make_backend("torch", batch="4")  # type: ignore[arg-type]


def test_torch_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    backend = make_backend("torch", threads=before + 1)
    with backend.session():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_isolated_measurements(tiny_spec: SpaceSpec) -> None:
    backend = make_backend("torch")
    steps: list[tuple[str, int, int]] = []
    table = measure_table_isolated(
        tiny_spec,
        backend,
        progress=lambda *step: steps.append(step),
        calibration_networks=2,
        protocol=SHORT,
        network_protocol=SHORT,
    )
    assert set(table.operators) == set(tiny_spec.distinct_operators())
    assert steps[0][1:] == (1, 4)
    assert measure_isolated(random_architecture(tiny_spec, random.Random(0)), backend, processes=1) > 0


def test_a_failed_measuring_process_says_why(tiny_spec: SpaceSpec) -> None:
    backend = SyntheticBackend()  # which the other process does not know
    with pytest.raises(RunError, match=r"measuring with synthetic failed: .*unknown latency backend"):
        measure_isolated(random_architecture(tiny_spec, random.Random(0)), backend)
