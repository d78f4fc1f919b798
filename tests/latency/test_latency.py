"""Latency tables, compared with sums by hand and finite differences, and measurements of a synthetic device."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from nni_proxyless.errors import InputError, LatencyTableError, MissingOperatorError
from nni_proxyless.latency import (
    BACKENDS,
    Backend,
    Calibration,
    CommandBackend,
    Device,
    LatencyTable,
    OperatorCost,
    Protocol,
    Samples,
    Workload,
    fit_calibration,
    isolated,
    make_backend,
    measure_isolated,
    measure_table,
    measure_table_isolated,
    random_architecture,
    sample_interleaved,
)
from nni_proxyless.latency import validate as validation
from nni_proxyless.latency.arrays import spearman
from nni_proxyless.latency.calibration import calibrate, fit_corrections
from nni_proxyless.latency.judgement import BAD_FROM
from nni_proxyless.latency.random_architectures import calibration_architectures, draw_architectures
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.operators import Operator
from nni_proxyless.network.quantization import quantize_static
from nni_proxyless.network.space_spec import SpaceSpec
from tests.supernet.test_binary_gates import finite_difference

SHORT = Protocol(warmup_s=0.001, settle_s=0.0, sample_s=0.0005, min_rounds=3, max_rounds=4)


def made_up_table(operators: dict[Any, OperatorCost]) -> LatencyTable:
    device = Device("made up", "none", 1)
    return LatencyTable(device, "torch", "0", "float32", 1, 1, "2026-01-01T00:00:00+00:00", operators)


def test_latency_of_every_network_is_the_sum_by_hand(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    for picks in itertools.product(*(layer.names for layer in tiny_spec.layers)):
        choices = {layer.label: name for layer, name in zip(tiny_spec.layers, picks, strict=True)}
        entries = [tiny_table.operators[op].cost for op in tiny_spec.operators(choices)]
        assert costs.of(choices) == pytest.approx(2.0 * sum(entries) + 0.5)


def test_expectation_is_the_mean_over_all_networks(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    probs = {k: torch.softmax(torch.randn(len(v), dtype=torch.float64), 0) for k, v in costs.layers.items()}
    mean = 0.0
    for picks in itertools.product(*(range(len(layer.names)) for layer in tiny_spec.layers)):
        choices = {layer.label: layer.names[i] for layer, i in zip(tiny_spec.layers, picks, strict=True)}
        weight = math.prod(float(probs[layer.label][i]) for layer, i in zip(tiny_spec.layers, picks, strict=True))
        mean += weight * costs.of(choices)
    assert float(costs.expected(probs)) == pytest.approx(mean)


def test_gradient_of_expected_latency_against_finite_differences(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    costs = tiny_table.costs(tiny_spec)
    fixed = {k: torch.randn(len(v), dtype=torch.float64) for k, v in costs.layers.items()}
    for label, alpha in fixed.items():
        leaves = {k: a.clone().requires_grad_() for k, a in fixed.items()}
        costs.expected({k: torch.softmax(a, 0) for k, a in leaves.items()}).backward()

        def expected(a: torch.Tensor, label: str = label) -> torch.Tensor:
            return costs.expected({k: torch.softmax(v, 0) for k, v in {**fixed, label: a}.items()})

        gradient = leaves[label].grad
        torch.testing.assert_close(gradient, finite_difference(expected, alpha), rtol=1e-6, atol=1e-8)
        assert float(gradient.abs().max()) > 1e-3


def test_smallest_and_largest(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    everything = [
        costs.of({layer.label: name for layer, name in zip(tiny_spec.layers, picks, strict=True)})
        for picks in itertools.product(*(layer.names for layer in tiny_spec.layers))
    ]
    assert costs.smallest == pytest.approx(min(everything))
    assert costs.largest == pytest.approx(max(everything))
    with pytest.raises(InputError, match="layer stage1_layer1"):
        costs.of({"stage1_layer1": "nothing"})


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
    assert set(content["calibration"]) == {"scale", "offset_ms", "networks", "mean_relative_error", "architectures"}
    assert set(content["operators"][0]) == {
        "kind", "input", "output", "kernel", "expansion", "stride", "latency_ms", "spread_ms", "runs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other@1"}, "schema must be"),
        ({"unit": "us"}, "unit must be 'ms', 'flops' or 'params'"),
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
    with pytest.raises(LatencyTableError, match="is a duplicate"):
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


def test_noise_does_not_make_all_networks_equally_fast() -> None:
    """On a very busy machine, the slow moments decide which network seems slow. An offset would fit them best."""
    sums = [float(i) for i in range(1, 13)]
    measured = [8.0, 9.5, 8.4, 10.1, 7.9, 9.0, 8.8, 9.9, 8.1, 9.4, 8.6, 9.2]
    assert spearman(np.array(sums), np.array(measured)) < 0.5
    found = fit_calibration(sums, measured)
    assert found.offset_ms == 0.0
    assert found.mean_relative_error > BAD_FROM  # so the table says that it is bad


def test_corrections_tell_what_differs_inside_a_network() -> None:
    """Known costs per unit of two amounts are recovered. If there are no such costs, the corrections are nearly 0."""
    draw = np.random.default_rng(0)
    sums = draw.uniform(4, 8, 24)
    amounts = np.column_stack([draw.uniform(1, 3, 24), draw.uniform(2, 6, 24)])
    noise = draw.normal(1, 0.001, 24)
    measured = 1.1 * (sums + amounts @ [-0.2, 0.1]) * noise
    assert fit_corrections(sums, amounts, measured) == pytest.approx((-0.2, 0.1), abs=0.01)
    assert fit_corrections(sums, amounts, 1.1 * sums * noise) == pytest.approx((0.0, 0.0), abs=0.01)
    assert fit_corrections(sums[:7], amounts[:7], measured[:7]) == (0.0, 0.0)


def test_operators_are_corrected_where_they_convert(tiny_spec: SpaceSpec) -> None:
    """Corrected tables predict networks although operators alone take longer, by a cost per input and output value."""
    inside = {op: op.multiply_adds / 1e5 + 0.01 for op in tiny_spec.distinct_operators()}

    def values(op: Operator) -> float:
        return (math.prod(op.input_shape) + math.prod(op.output_shape)) / 1e6

    alone: dict[Any, OperatorCost] = {op: OperatorCost(cost + 10.0 * values(op), 0.0, 1) for op, cost in inside.items()}
    networks = draw_architectures(tiny_spec, 60, random.Random(0))
    measured = {a.candidate_names: sum(inside[op] for op in tiny_spec.operators(a.choices)) for a in networks}
    known = dict(list(measured.items())[:30])
    tables = [
        calibrate(replace(made_up_table(alone), backend=backend), tiny_spec, known)
        for backend in ("onnxruntime", "torch")
    ]
    errors = [
        max(abs(table.costs(tiny_spec).of(a.choices) / measured[a.candidate_names] - 1) for a in networks[30:])
        for table in tables
    ]
    assert errors[0] < 0.3 * errors[1], errors
    assert tables[0].calibration.ms_per_million_values < -1.0
    assert tables[1].calibration.ms_per_million_values == 0.0
    assert "corrections" not in tables[1].to_dict()
    for table in tables:
        assert LatencyTable.from_dict(table.to_dict()) == table


def test_calibration_never_makes_small_networks_negative() -> None:
    found = fit_calibration([1.0, 1.2, 1.5, 4.0], [0.001, 0.3, 0.7, 4.0])
    assert found.scale * 1.0 + found.offset_ms > 0
    single = fit_calibration([2.0], [3.0])
    assert (single.scale, single.offset_ms) == (pytest.approx(1.5), 0.0)


def test_samples_by_hand() -> None:
    samples = Samples((1.0, 2.0, 3.0, 4.0, 100.0))
    assert samples.median == 3.0
    assert samples.spread == pytest.approx(1.2533 * (4.0 - 2.0) / 1.349 / math.sqrt(5))
    slowed = Samples((1.0, 4.0, 3.0), (1.0, 2.0, 1.0))
    assert slowed.values.tolist() == [1.0, 2.0, 3.0]
    assert slowed.median == 2.0
    half = Samples((4.0, 6.0), (1.0, 1.0), reference=10.0)
    assert half.ratio == 0.5
    assert half.at_level(8.0).median == pytest.approx(4.0)
    assert half.at_level(8.0).ratio == pytest.approx(0.5)
    assert slowed.at_level(8.0) is slowed


class SyntheticBackend(Backend):
    """Synthetic device with known latencies of operators. A network takes their scaled sum and a constant.

    No real time passes, because the device's own clock replaces the real clocks. With `episodes`, everything takes 20 %
    longer in every other second, as on a machine with other users.
    """

    name = "synthetic"
    version = "1"

    def __init__(self, noise: float = 0.0, episodes: bool = False) -> None:
        super().__init__()
        self.now = 0.0
        self._noise = random.Random(1)
        self._spread = noise
        self._episodes = episodes

    def cost_ms(self, module: nn.Module) -> float:
        parameters = sum(p.numel() for p in module.parameters())
        return 0.02 + 0.001 * parameters if parameters else 0.0

    def network_ms(self, operators: list[Operator]) -> float:
        return 0.7 * sum(self.cost_ms(operator.build()) for operator in operators) + 0.1 + 0.005

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        call_ms = 0.005
        if hasattr(module, "blocks"):
            parts = [module.stem, *module.blocks, module.head, module.classifier]
            cost = 0.7 * sum(self.cost_ms(part) for part in parts) + 0.1 + call_ms
        else:
            cost = self.cost_ms(module) + call_ms

        def run() -> None:
            slow = 1.2 if self._episodes and int(self.now) % 2 else 1.0
            self.now += slow * cost * (1 + self._spread * abs(self._noise.gauss(0, 1))) / 1000

        return Workload(run)


@pytest.fixture
def synthetic(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SyntheticBackend]:
    def make(**settings: Any) -> SyntheticBackend:
        backend = SyntheticBackend(**settings)
        for clock in ("perf_counter", "time"):
            monkeypatch.setattr(time, clock, lambda: backend.now)
        return backend

    return make


@pytest.mark.parametrize(
    ("settings", "bound"), [({}, 1e-6), ({"noise": 0.03}, 0.09), ({"noise": 0.01, "episodes": True}, 0.03)]
)
def test_a_synthetic_device_is_recovered(
    settings: dict[str, Any], bound: float, tiny_spec: SpaceSpec, synthetic: Callable[..., SyntheticBackend]
) -> None:
    backend = synthetic(**settings)
    table = measure_table(tiny_spec, backend)
    for operator, entry in table.operators.items():
        assert entry.cost == pytest.approx(backend.cost_ms(operator.build()), rel=bound)
    assert table.call_overhead_ms == pytest.approx(0.005, rel=bound)
    costs = table.costs(tiny_spec)
    for seed in range(5):
        architecture = random_architecture(tiny_spec, random.Random(seed))
        true = backend.network_ms(architecture.operators())
        assert costs.of(architecture.choices) == pytest.approx(true, rel=bound)


def test_workloads_are_interleaved() -> None:
    order: list[str] = []
    workloads = {name: lambda name=name: Workload(lambda: order.append(name)) for name in "abc"}
    taken = sample_interleaved(workloads, replace(SHORT, warmup_s=0.0, settle_s=0.0, sample_s=0.0))
    assert [len(samples.raw) for samples in taken.values()] == [4, 4, 4]
    timed = order[-3 * 3 * 2 :]  # in the last three rounds, each workload runs twice: to settle, and to be timed
    rounds = [timed[i : i + 6] for i in range(0, len(timed), 6)]
    assert all(sorted(r) == list("aabbcc") for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1


# Settings of each backend in the conformance suite. The command prints the size of the model file as its latency.
SETTINGS: dict[str, dict[str, Any]] = {
    "torch": {},
    "onnxruntime": {},
    "onnxruntime int8": {"dtype": "int8"},
    "openvino": {},
    "openvino int8": {"dtype": "int8"},
    "mnn": {},
    "ncnn": {},
    "command": {"command": "wc -c < {model}"},
    "flops": {},
    "params": {},
}


@pytest.fixture(params=SETTINGS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return make_backend(request.param.split()[0], **SETTINGS[request.param])


def test_the_conformance_suite_leaves_out_no_backend() -> None:
    assert {name.split()[0] for name in SETTINGS} == set(BACKENDS)


def test_every_backend_measures_a_space(backend: Backend, tiny_spec: SpaceSpec) -> None:
    short = replace(SHORT, min_rounds=1, max_rounds=1) if isinstance(backend, CommandBackend) else SHORT
    table = measure_table(tiny_spec, backend, calibration_networks=3, protocol=short, network_protocol=short)
    assert set(table.operators) == set(tiny_spec.distinct_operators())
    assert LatencyTable.from_dict(table.to_dict()) == table
    assert table.calibration.networks == (0 if backend.exact else 3)
    assert (table.backend, table.unit) == (backend.name, backend.unit)
    costs = table.costs(tiny_spec)
    assert 0 < costs.smallest < costs.largest
    assert costs.unit == backend.unit


def test_every_backend_is_made_again_from_its_settings(backend: Backend) -> None:
    again = make_backend(**json.loads(json.dumps(backend.settings)))
    assert type(again) is type(backend)
    assert again.settings == backend.settings
    assert (again.device, again.dtype, again.version) == (backend.device, backend.dtype, backend.version)


def test_every_backend_takes_a_sample(backend: Backend, tiny_spec: SpaceSpec) -> None:
    network = random_architecture(tiny_spec, random.Random(2)).build()
    with backend.session():
        assert 0 < backend.prepare(network, tiny_spec.input_shape).sample(2) < math.inf


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "onnxruntime int8"])
def test_what_is_timed_computes_the_network(name: str, tiny_spec: SpaceSpec) -> None:
    """The workload that is timed returns finite outputs of the right shape, so it runs the network."""
    network = random_architecture(tiny_spec, random.Random(2)).build()
    output = make_backend(name.split()[0], batch=3, **SETTINGS[name]).prepare(network, tiny_spec.input_shape).run()
    value = output if isinstance(output, torch.Tensor) else torch.from_numpy(output[0])  # type: ignore[index]
    assert value.shape == (3, 3)
    assert torch.isfinite(value).all()


def test_counted_tables_are_the_published_formulas(tiny_spec: SpaceSpec) -> None:
    flops = measure_table(tiny_spec, make_backend("flops"))
    params = measure_table(tiny_spec, make_backend("params"))
    for seed in range(5):
        architecture = random_architecture(tiny_spec, random.Random(seed))
        assert flops.costs(tiny_spec).of(architecture.choices) == architecture.multiply_adds
        assert params.costs(tiny_spec).of(architecture.choices) == architecture.parameters
    content = flops.to_dict()
    assert content["unit"] == "flops"
    assert "latency_ms" not in content["operators"][0]


def test_int8_models_hold_int8(tiny_spec: SpaceSpec) -> None:
    import onnx

    network = random_architecture(tiny_spec, random.Random(2)).build()
    model = onnx.load_from_string(quantize_static(export_onnx(network, tiny_spec.input_shape, 1)))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    source = {output: node for node in model.graph.node for output in node.output}
    assert convolutions
    for node in convolutions:
        weight = source[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert stored[weight.input[0]] == onnx.TensorProto.INT8


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
    assert steps[0] == ("operators, round 1 of at most 4, process 1 of 2", 1, len(table.operators) + 1)
    # Each process measures one of the two calibration networks.
    assert steps[-1][0].startswith("networks, round ")
    assert steps[-1][0].endswith("process 2 of 2")
    assert steps[-1][1:] == (1, 1)
    assert table.calibration.error_text.startswith("; the table predicts 2 measured networks with a mean error of ")
    assert Calibration().error_text == ""
    assert measure_isolated(random_architecture(tiny_spec, random.Random(0)), backend, processes=1) > 0


def test_a_failed_measuring_process_says_why(tiny_spec: SpaceSpec) -> None:
    backend = SyntheticBackend()  # the other process does not know this backend
    with pytest.raises(InputError, match="unknown latency backend 'synthetic'"):
        measure_isolated(random_architecture(tiny_spec, random.Random(0)), backend)


def test_calibration_spans_the_space(tiny_spec: SpaceSpec) -> None:
    """The calibration networks are distinct, and include the smallest and the largest network of the space."""
    names = [layer.names for layer in tiny_spec.layers]
    labels = [layer.label for layer in tiny_spec.layers]
    sizes = {
        " ".join(choices): sum(op.multiply_adds for op in tiny_spec.operators(dict(zip(labels, choices, strict=True))))
        for choices in itertools.product(*names)
    }
    for count in (2, 3, len(sizes)):
        drawn = [a.candidate_names for a in calibration_architectures(tiny_spec, count, seed=0)]
        assert len(set(drawn)) == len(drawn) == count
        assert {sizes[name] for name in drawn} >= {min(sizes.values()), max(sizes.values())}
    assert calibration_architectures(tiny_spec, 0, seed=0) == []


def test_processes_are_put_together_by_their_ratio_to_the_reference(
    tiny_spec: SpaceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Combine three processes, one with slower memory and one with a disturbed network.

    The result has the median of the ratios to the reference, at the level of the fastest process.
    """
    answers = [
        [([10.0, 10.0], [1.0, 1.0], 5.0), ([20.0], [1.0], 5.0)],
        [([11.0, 11.0], [1.0, 1.0], 5.5), ([22.0], [1.0], 5.5)],  # everything is 10 % slower
        [([10.0, 10.0], [1.0, 1.0], 5.0), ([30.0], [1.0], 5.0)],  # only the second network is slow
    ]
    monkeypatch.setattr(isolated, "_in_fresh_processes", lambda *_: answers)
    networks = [random_architecture(tiny_spec, random.Random(i)) for i in range(2)]
    found = isolated.measure_networks_isolated(networks, make_backend("torch"))
    assert [samples.median for samples in found] == pytest.approx([10.0, 20.0])


def test_validation_takes_off_what_the_machine_has_changed(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend("torch")
    table = replace(
        tiny_table,
        device=backend.device,
        backend_version=backend.version,
        reference_ms=1.0,
        calibration=replace(tiny_table.calibration, architectures=("k3_e1 k3_e1 k3_e1",)),
    )
    costs = table.costs(tiny_spec)

    def slower(architectures: Any, backend: Backend, *, reference_ms: float | None, **_: object) -> list[Samples]:
        found = [Samples((1.2 * costs.of(a.choices),), (1.0,), 1.2) for a in architectures]
        return [samples.at_level(reference_ms) for samples in found]

    monkeypatch.setattr(validation, "measure_networks_isolated", slower)
    found = validation.validate(table, tiny_spec, 20, backend=backend)
    assert found.mean_error == pytest.approx(0.0, abs=1e-9)
    assert found.machine == pytest.approx(1.2)
    assert found.spearman == found.kendall == pytest.approx(1.0)
    np.testing.assert_allclose(found.raw_ms, 1.2 * found.measured_ms)
    assert not {a.candidate_names for a in found.architectures} & set(table.calibration.architectures)
    # A table of another device does not show how fast this machine was before.
    other = validation.validate(replace(table, device=tiny_table.device), tiny_spec, 20, backend=backend)
    assert other.machine is None
    assert other.bias == pytest.approx(1 / 1.2 - 1)
