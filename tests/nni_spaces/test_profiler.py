"""Latency profiles of NNI's hub spaces and of users' own spaces, compared with counts on frozen networks."""

from __future__ import annotations

import math
from dataclasses import replace

import nni
import nni.nas.strategy  # imported first: otherwise NNI's import cycle leaves stubs
import numpy as np
import pytest
import torch
from nni.mutable import Categorical
from nni.nas.hub.pytorch import MobileNetV3Space, ShuffleNetSpace
from nni.nas.hub.pytorch import ProxylessNAS as HubProxylessNAS
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear, Repeat
from nni.nas.oneshot.pytorch.profiler import RangeProfilerFilter
from torch import Tensor, nn

from nni_proxyless import LatencyProfiler, LatencyTable, MobileNetV2Space, ProxylessNAS
from nni_proxyless.errors import InputError, LatencyTableError, MissingOperatorError, SpaceError
from nni_proxyless.latency import Calibration, Protocol, make_backend, measure_table
from nni_proxyless.latency.architectures_file import Measurements
from nni_proxyless.latency.fitting.fit import fit_table
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_spaces.space_latency import measure_model_space
from nni_proxyless.nni_spaces.space_walk import walk
from nni_proxyless.strategies.penalty import expectation
from tests.helpers import made_up_table

SHORT = Protocol(warmup_s=0.0, settle_s=0.0, sample_s=0.0005, min_rounds=2, max_rounds=2)


class Small(ModelSpace):
    """Space with a layer of two candidates, a block that is repeated one to three times, and a choice of width."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.stem = MutableConv2d(3, width, 3, padding=1)
        self.layer = LayerChoice(
            {"small": MutableConv2d(width, 8, 1), "large": MutableConv2d(width, 8, 3, padding=1)}, label="layer"
        )
        self.blocks = Repeat(lambda index: nn.Conv2d(8, 8, 3, padding=1), (1, 3), label="depth")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.layer(self.stem(x))))
        return self.classifier(x.view(x.size(0), -1))


def samples(space: ModelSpace, count: int) -> list[tuple[dict[str, object], nn.Module]]:
    found = []
    draw = np.random.RandomState(0)
    for _ in range(count):
        sample: dict[str, object] = {}
        found.append((sample, space.random(sample, random_state=draw)))
    return found


@pytest.mark.parametrize("make", [Small, HubProxylessNAS, ShuffleNetSpace])
def test_a_table_of_version_0_1_counts_the_parameters_of_the_frozen_network(make: type[ModelSpace]) -> None:
    space = make()
    counts = {unit.call: sum(p.numel() for p in unit.module.parameters()) for unit in walk(space, (3, 32, 32))}
    made = made_up_table({call: float(count) for call, count in counts.items() if count}, Calibration(), "hub")
    table = replace(made, unit="params", input_shape=(3, 32, 32))
    profiler = LatencyProfiler(space, LatencyTable.from_dict(table.to_dict()))
    for sample, network in samples(space, 5):
        assert profiler.profile(sample) == sum(p.numel() for p in network.parameters())


def test_measured_hub_space_in_filters_penalties_and_searches() -> None:
    space = Small()
    backend = make_backend("torch")
    table = measure_model_space(
        space, (3, 8, 8), backend, calibration_networks=4, protocol=SHORT, network_protocol=SHORT
    )
    assert table.calibration.networks == 4
    assert table.space == f"{__name__}.Small"
    profiler = LatencyProfiler(space, table)
    latencies = {str(sample): profiler.profile(sample) for sample, _ in samples(space, 12)}
    middle = float(np.median(list(latencies.values())))
    within = RangeProfilerFilter(profiler, max=middle)
    for sample, _ in samples(space, 12):
        assert within.filter(sample) == (latencies[str(sample)] <= middle)
    # Each further block adds the latency of one convolution.
    one, two, three = (profiler.profile({"width": 4, "layer": "small", "depth": depth}) for depth in (1, 2, 3))
    assert two - one == pytest.approx(three - two)
    assert two > one > 0
    choices = {k: v for k, v in space.simplify().items() if isinstance(v, Categorical)}
    uniform = {
        label: {v: torch.tensor(1 / len(choice.values), requires_grad=True) for v in choice.values}
        for label, choice in choices.items()
    }
    expected = expectation(profiler.expression, uniform)
    everything = [
        profiler.profile({"width": w, "layer": k, "depth": d})
        for w in (4, 8)
        for k in ("small", "large")
        for d in (1, 2, 3)
    ]
    assert float(expected.detach()) == pytest.approx(float(np.mean(everything)), rel=1e-5)
    expected.backward()
    assert all(math.isfinite(float(p.grad)) for p in uniform["layer"].values())


def test_flops_and_params_tables_are_penalties_beside_latency(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    space = MobileNetV2Space(tiny_spec)
    params = LatencyProfiler(space, measure_table(tiny_spec, make_backend("params")))
    strategy = ProxylessNAS(latency=tiny_table, penalty={"profiler": params, "baseline": 1e4, "scale": 0.1})
    assert strategy.penalty is not None
    assert strategy.latency is tiny_table
    with pytest.raises(InputError, match=r"latency= needs a table in ms.*flops.*penalty="):
        ProxylessNAS(latency=measure_table(tiny_spec, make_backend("flops")))


def test_a_fitted_table_serves_any_space() -> None:
    space = Small()
    draw = np.random.default_rng(0)
    values = {"width": ["4", "8"], "layer": ["small", "large"], "depth": ["1", "2", "3"]}
    layers = {label: draw.choice(np.array(names), 60) for label, names in values.items()}
    true = 1 + 0.5 * (layers["width"] == "8") + 0.3 * (layers["layer"] == "large") + 0.2 * layers["depth"].astype(int)
    table = fit_table(Measurements(layers, true)).table
    profiler = LatencyProfiler(space, table)
    for sample, _ in samples(space, 6):
        by_hand = (
            1 + 0.5 * (sample["width"] == 8) + 0.3 * (sample["layer"] == "large") + 0.2 * int(str(sample["depth"]))
        )
        assert profiler.profile(sample) == pytest.approx(by_hand, rel=0.01)
    with pytest.raises(LatencyTableError, match="has layer width with 4, 8; ShuffleNetSpace has no such layer"):
        LatencyProfiler(ShuffleNetSpace(), table)


def test_a_candidate_that_does_not_exist_is_refused() -> None:
    space = Small()
    profiler = LatencyProfiler(space, measure_model_space(space, (3, 8, 8), make_backend("params")))
    label = next(iter(space.simplify()))
    sample = samples(space, 1)[0][0]
    assert profiler.profile(sample) > 0
    with pytest.raises(InputError, match=rf"layer {label}: unknown candidate .*\[3, 1\].* \(allowed: "):
        profiler.profile({**sample, label: [3, 1]})


def test_a_table_of_another_space_is_refused(tiny_table: LatencyTable) -> None:
    table = measure_model_space(Small(), (3, 8, 8), make_backend("params"))
    other = measure_model_space(Small(), (3, 8, 8), make_backend("torch"), calibration_networks=0, protocol=SHORT)
    with pytest.raises(LatencyTableError, match="has layer depth with 1, 2, 3; ProxylessNAS has no such layer"):
        LatencyProfiler(HubProxylessNAS(), other)
    old = replace(other, composition=None)
    with pytest.raises(MissingOperatorError, match=r"lacks \d+ module"):
        LatencyProfiler(HubProxylessNAS(), old)
    with pytest.raises(SpaceError, match="measure_model_space"):
        LatencyProfiler(Small(), tiny_table)
    with pytest.raises(SpaceError, match=r"has \d+ variants or more; at most 500 are measured"):
        walk(MobileNetV3Space(), (3, 32, 32))
    with pytest.raises(SpaceError, match="shape inference fails on Small"):
        walk(Small(), (5, 8, 8))
    assert table.input_shape == (3, 8, 8)
