"""Tables of any model space, against costs and counts of all of its networks as NNI builds them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nni
import nni.nas.strategy  # imported first: otherwise NNI's import cycle leaves stubs
import numpy as np
import onnxruntime
import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from nni_proxyless import LatencyProfiler, LatencyTable, ProxylessNAS
from nni_proxyless.decoding.distribution import ArchitectureDistribution
from nni_proxyless.errors import InputError, LatencyTableError, SpaceError
from nni_proxyless.latency import Protocol, make_backend
from nni_proxyless.latency.backends.base import Workload
from nni_proxyless.latency.calls import Call
from nni_proxyless.latency.show import layer_bars
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.nni_spaces.space_latency import measure_model_space, measure_space_networks
from nni_proxyless.strategies.applied_table import costs_of_space
from nni_proxyless.supernet.candidates import path_candidates, searched
from nni_proxyless.supernet.constraints import Constraints
from tests.nni_spaces.spaces import ComputedBackend, EveryChoice, LooseEnds, Sequences, cost_ms, samples_of
from tests.strategies.hub_spaces import SPACES
from tests.strategies.test_self_check import QUIET, Plain

SHAPE = (3, 8, 8)
SHORT = Protocol(warmup_s=0.0, settle_s=0.0, sample_s=0.0005, min_rounds=2, max_rounds=2)


def drawn(space: ModelSpace, count: int, seed: int) -> list[dict[str, Any]]:
    """Random networks that keep the constraints of a space."""
    mutables = space.simplify()
    generator, constraints = random.Random(seed), Constraints.in_space(mutables)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        sample = {label: generator.choice(path_candidates(mutables[label])) for label in searched(mutables)}
        if constraints.allow(sample):
            found.append(sample)
    return found


def candidates_of(space: ModelSpace) -> dict[str, tuple[Any, ...]]:
    return {str(label): tuple(path_candidates(mutable)) for label, mutable in space.simplify().items()}


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return measure_model_space(EveryChoice(), SHAPE, ComputedBackend())


@pytest.fixture(scope="module")
def loose_ends() -> LatencyTable:
    return measure_model_space(LooseEnds(), SHAPE, ComputedBackend())


@pytest.mark.parametrize("pooled", [False, True])
def test_the_costs_of_all_networks_are_those_of_the_networks_that_nni_builds(pooled: bool, tmp_path: Path) -> None:
    space = EveryChoice(pooled)
    table = measure_model_space(space, SHAPE, ComputedBackend())
    assert table.calibration.networks == 12
    assert table.calibration.mean_relative_error == pytest.approx(0.0, abs=1e-9)
    table = LatencyTable.load(table.save(tmp_path / "table.yml"))
    costs = costs_of_space(table, space, candidates_of(space))
    profiler = LatencyProfiler(space, table)
    everything = {}
    for sample in samples_of(space):
        true = cost_ms(space.freeze(sample), torch.randn(1, *SHAPE))
        assert costs.of(sample) == pytest.approx(true)
        assert profiler.profile(sample) == pytest.approx(true)
        everything[str(sample)] = true
    assert len(everything) == 128
    assert costs.smallest == pytest.approx(min(everything.values()))
    assert costs.largest == pytest.approx(max(everything.values()))
    assert costs.of(costs.cheapest) == pytest.approx(costs.smallest)
    uniform = {label: torch.full((len(of),), 1.0 / len(of)) for label, of in costs.candidates.items()}
    assert float(costs.expected(uniform)) == pytest.approx(math.fsum(everything.values()) / 128, rel=1e-6)


@pytest.mark.parametrize("backend", ["params", "flops"])
def test_counts_of_all_networks_are_those_of_the_networks_that_nni_builds(backend: str, table: LatencyTable) -> None:
    space = EveryChoice(pooled=True)
    own = measure_model_space(space, SHAPE, make_backend(backend)).own_costs()
    latencies = measure_model_space(space, torch.randn(2, *SHAPE), ComputedBackend(batch=2))
    assert latencies.composition is not None
    beside = latencies.composition.counts("parameters" if backend == "params" else "multiply_adds")
    for sample in samples_of(space):
        network = space.freeze(sample)
        if backend == "params":
            true: float = sum(p.numel() for p in network.parameters())
        else:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.randn(1, *SHAPE))
            true = counter.get_total_flops() / 2
        named = {label: str(candidate) for label, candidate in sample.items()}
        assert own.of(named) == true
        assert beside.of(named) == true


HUB = ("ProxylessNAS", "AutoFormer", "NasBench201", "MobileNetV3Space", "ENAS", "NasBench101")


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB)
def test_counts_of_hub_spaces_are_those_of_the_networks_that_nni_builds(name: str) -> None:
    space, size = SPACES[name].make(), SPACES[name].size
    own = measure_model_space(space, (3, size, size), make_backend("flops"))
    assert all("object at 0x" not in entry.module for entry in own.operators)  # type: ignore[union-attr]
    assert own.composition is not None
    parameters = own.composition.counts("parameters")
    for sample in drawn(space, 6, seed=1):
        network = space.freeze(dict(sample)).eval()
        named = {label: str(candidate) for label, candidate in sample.items()}
        assert parameters.of(named) == sum(p.numel() for p in network.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.randn(1, 3, size, size))
        assert own.own_costs().of(named) == counter.get_total_flops() / 2


def test_cells_with_loose_ends_are_exact_and_are_decoded_exactly(loose_ends: LatencyTable, tmp_path: Path) -> None:
    space, table = LooseEnds(), loose_ends
    assert table.calibration.mean_relative_error == pytest.approx(0.0, abs=1e-9)
    table = LatencyTable.load(table.save(tmp_path / "table.yml"))
    candidates = candidates_of(space)
    costs, profiler = costs_of_space(table, space, candidates), LatencyProfiler(space, table)
    assert [quantity.values for quantity in costs.derived] == [("1", "2", "3")]
    probs = {label: torch.softmax(torch.arange(len(of)).double(), 0) for label, of in candidates.items()}
    found = ArchitectureDistribution(candidates, probs, costs)
    known = []
    for sample in samples_of(space):
        true = cost_ms(space.freeze(sample), torch.randn(1, *SHAPE))
        assert costs.of(sample) == pytest.approx(true)
        assert profiler.profile(sample) == pytest.approx(true)
        known.append((found.log_likelihoods([sample])[0], true))
    assert len(known) == 48
    assert (costs.smallest, costs.largest) == pytest.approx((min(n[1] for n in known), max(n[1] for n in known)))
    assert found.expected_ms() == pytest.approx(math.fsum(math.exp(p) * true for p, true in known), rel=1e-6)
    budget = 0.7 * costs.smallest + 0.3 * costs.largest
    within = sorted((n for n in known if n[1] <= budget), reverse=True)
    best = found.k_most_likely(4, budget)
    assert found.log_likelihoods(best) == pytest.approx([n[0] for n in within[:4]])
    assert all(costs.of(choices) <= budget for choices in best)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(name=[3]), "derived 1: name"),
        (lambda d: d.update(name="cell/op_1_0"), "must have different names, which are not labels"),
        (lambda d: d.update(labels=["wrong"]), "labels must be labels of the candidates"),
        (lambda d: d.update(labels=[d["labels"][1]] * 3), "a label is listed twice"),
        (lambda d: d.update(steps=d["steps"][:2]), "steps must have an item for each label"),
        (lambda d: d["steps"].__setitem__(1, "0 1 2"), r"must be strings of 2 numbers for each state, got '0 1 2'"),
        (lambda d: d["steps"].__setitem__(1, "0 -1"), "must be strings of 2 numbers for each state"),
        (lambda d: d["steps"].__setitem__(1, "0 9"), "must have 10 states, got 2"),
        (lambda d: d.update(values=["1", "2"]), "the steps lead to 3 values, and only 2 are listed"),
        (lambda d: d.update(values=["1", "1", "2"]), "values must be a list of different strings"),
        (lambda d: d.update(more=1), "more"),
    ],
)
def test_damaged_quantities_are_refused(change: Any, message: str, loose_ends: LatencyTable) -> None:
    content = loose_ends.to_dict()
    change(content["composition"]["derived"][0])
    with pytest.raises(LatencyTableError, match=message):
        LatencyTable.from_dict(content)


@pytest.mark.parametrize("seed", range(4))
def test_decoding_within_a_budget_is_that_of_all_networks(seed: int, table: LatencyTable) -> None:
    space = EveryChoice()
    candidates = candidates_of(space)
    costs = costs_of_space(table, space, candidates)
    generator = torch.Generator().manual_seed(seed)
    probs = {
        label: torch.softmax(2 * torch.randn(len(of), generator=generator).double(), 0)
        for label, of in candidates.items()
    }
    found = ArchitectureDistribution(candidates, probs, costs)
    networks = [(found.log_likelihoods([s])[0], cost_ms(space.freeze(s), torch.randn(1, *SHAPE)), s)
                for s in samples_of(space)]  # fmt: skip
    for part in (0.05, 0.3, 0.6):
        budget = costs.smallest + part * (costs.largest - costs.smallest)
        within = sorted((n for n in networks if n[1] <= budget), key=lambda n: -n[0])
        best = found.k_most_likely(3, budget)
        assert [found.log_likelihoods([s])[0] for s in best] == pytest.approx([n[0] for n in within[:3]])
        assert found.most_likely(budget) == within[0][2]
    with pytest.raises(InputError, match="no network of this space is within"):
        found.most_likely(0.9 * costs.smallest)


def search(strategy: ProxylessNAS, epochs: int = 2) -> ModelSpace:
    torch.manual_seed(0)
    space = EveryChoice()
    data = TensorDataset(torch.randn(32, *SHAPE), torch.randint(0, 2, (32,)))
    loaders = [DataLoader(data, batch_size=8) for _ in range(2)]
    trainer = Trainer(max_epochs=epochs, **QUIET)
    evaluator = Lightning(Plain(), trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return space


@pytest.mark.parametrize("gradient", ["full", "two_path", "reinforce"])
def test_a_search_keeps_its_budgets(gradient: Any, table: LatencyTable) -> None:
    costs = table.own_costs()
    budget = 0.5 * (costs.smallest + costs.largest)
    strategy = ProxylessNAS(
        latency=table, budget_ms=budget, budgets={"parameters": 700, "multiply_adds": "90%"}, arch_gradient=gradient,
        arch_update_every=1, arch_learning_rate=0.05, finalists=1, seed=0,
    )  # fmt: skip
    search(strategy)
    fresh, probs = EveryChoice(), strategy.path_probs()
    candidates = candidates_of(fresh)
    known = []
    for sample in samples_of(fresh):
        network = fresh.freeze(sample)
        latency = cost_ms(network, torch.randn(1, *SHAPE))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.randn(1, *SHAPE))
        likelihood = math.prod(float(probs[k][candidates[k].index(v)]) for k, v in sample.items())
        known.append(
            (likelihood, latency, sum(p.numel() for p in network.parameters()), counter.get_total_flops(), sample)
        )
    most = 0.9 * max(n[3] for n in known)
    within = [n for n in known if n[1] <= budget and n[2] <= 700 and n[3] <= most]
    assert 0 < len(within) < len(known)
    found = strategy.export_architecture()
    likelihood, latency, parameters, flops, choices = max(within, key=lambda n: n[0])
    assert found.choices == choices
    assert found.predicted_latency_ms == pytest.approx(latency)
    assert found.budgets["parameters"]["value"] == parameters
    assert found.budgets["multiply_adds"]["value"] == flops / 2
    front = strategy.export_front()["latency"]
    assert front[0].latency_ms == pytest.approx(min(n[1] for n in known if n[2] <= 700 and n[3] <= most))
    expected = sum(n[0] * n[1] for n in known)
    assert strategy.distribution().expected_ms() == pytest.approx(expected, rel=1e-6)


def test_counts_are_budgets_without_a_latency_too() -> None:
    counts = measure_model_space(EveryChoice(), SHAPE, make_backend("params"))
    strategy = ProxylessNAS(counts=counts, budgets={"parameters": "60%"}, finalists=1, seed=0)
    search(strategy, epochs=1)
    network = EveryChoice().freeze(dict(strategy.export_architecture().choices))
    assert sum(p.numel() for p in network.parameters()) <= 0.6 * counts.own_costs().largest


def test_budgets_that_no_network_is_within_are_refused_before_the_search(table: LatencyTable) -> None:
    smallest = table.own_costs().smallest
    with pytest.raises(InputError, match=r"no network of this space takes .* ms or less; the fastest takes"):
        search(ProxylessNAS(latency=table, budget_ms=0.9 * smallest))
    with pytest.raises(InputError, match="no network of this space is within parameters <= 10"):
        search(ProxylessNAS(latency=table, budget_ms=2 * smallest, budgets={"parameters": 10}))
    with pytest.raises(
        InputError, match=r"parameters, multiply_adds and, with memory=True, peak_memory only.*; known: latency"
    ):
        search(ProxylessNAS(latency=table, budgets={"file_size": "1MB"}))
    with pytest.raises(InputError, match="counts= must be a table of measure_model_space"):
        ProxylessNAS(counts=replace(table, composition=None), budgets={"parameters": 10})
    with pytest.raises(LatencyTableError, match="is measured for other layers: for 'block0' it has"):
        search(ProxylessNAS(latency=measure_model_space(
            Sequences(), (torch.zeros(1, 5, dtype=torch.long), (5,)), ComputedBackend()), budget_ms=9.0))  # fmt: skip


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_modules_with_several_inputs_are_run(backend: str) -> None:
    space = Sequences()
    tokens = torch.randint(0, 11, (2, 5))
    inputs = {"tokens": tokens, "weights": (5,)}
    made = make_backend(backend, batch=2)
    table = measure_model_space(space, inputs, made, calibration_networks=2, protocol=SHORT, network_protocol=SHORT)
    assert table.calibration.networks == 2
    assert len(table.operators) == 4
    assert all(cost.cost > 0 for cost in table.operators.values())
    shapes = {entry.inputs for entry in table.operators}  # type: ignore[union-attr]
    assert ((5, 8), (5,)) in shapes
    assert ((5,),) in shapes
    exact = measure_model_space(space, inputs, ComputedBackend(batch=2)).own_costs()
    for name in ("linear", "attention"):
        true = cost_ms(space.freeze({"mixer": name}), tokens, torch.randn(2, 5))
        assert exact.of({"mixer": name}) == pytest.approx(true)
    taken = measure_space_networks(space, inputs, [{"mixer": "linear"}, {"mixer": "attention"}], made, protocol=SHORT)
    assert len(taken) == 2
    assert all(samples.median > 0 for samples in taken)


def test_a_misspelt_name_of_an_input_is_told() -> None:
    inputs = {"token": torch.zeros(1, 5, dtype=torch.long), "weights": (5,)}
    with pytest.raises(InputError) as raised:
        measure_model_space(Sequences(), inputs, ComputedBackend())
    assert str(raised.value) == (
        "the example inputs have 'token', which Sequences.forward does not take; it takes tokens, weights and needs "
        "tokens, weights"
    )


class Encoders(ModelSpace):
    """A choice between PyTorch's own layer of a transformer, whose `forward` has a flag, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layer = LayerChoice({"encoder": encoder, "linear": nn.Linear(8, 8)}, label="layer")

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_modules_whose_forward_has_flags_run_in_onnx_runtime() -> None:
    made = make_backend("onnxruntime")
    table = measure_model_space(Encoders(), (5, 8), made, calibration_networks=0, protocol=SHORT)
    assert len(table.operators) == 2
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(1, 5, 8)
    session = onnxruntime.InferenceSession(export_onnx(layer, (5, 8), 1))
    (y,) = session.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.tensor(y), layer(x), rtol=1e-4, atol=1e-5)


class MovingBackend(ComputedBackend):
    """Backend of a machine that becomes slower by `slowdown`."""

    clocked = True
    slowdown = 1.0

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        return self.call_loader(Call(module, (torch.zeros(1, *input_shape),), {}, "module"))()

    def call_loader(self, call: Call) -> Callable[[], Workload]:
        cost = cost_ms(call.flat(), *call.tensors())

        class Timed(Workload):
            def sample(workload, repeats: int) -> float:
                return cost * self.slowdown

        return lambda: Timed(lambda: None)


def test_whole_networks_are_compared_with_a_table_at_the_speed_that_the_machine_had(tmp_path: Path) -> None:
    space, backend = EveryChoice(), MovingBackend()
    table = measure_model_space(space, SHAPE, backend, seed=3, protocol=SHORT, network_protocol=SHORT)
    table = LatencyTable.load(table.save(tmp_path / "table.yml"))
    samples = drawn(space, 5, 1)
    true = [cost_ms(space.freeze(sample), torch.randn(1, *SHAPE)) for sample in samples]
    backend.slowdown = 1.5
    for given, factor in ((table, 1.0), (None, 1.5)):
        taken = measure_space_networks(space, SHAPE, samples, backend, table=given, protocol=SHORT)
        assert [each.median for each in taken] == pytest.approx([factor * cost for cost in true])
        assert [np.median(each.raw) for each in taken] == pytest.approx([1.5 * cost for cost in true])


@pytest.mark.parametrize("change", ["backend", "space", "reference_ms"])
def test_a_table_that_cannot_be_compared_is_refused(change: str) -> None:
    space, backend = EveryChoice(), MovingBackend()
    table = measure_model_space(space, SHAPE, backend, calibration_networks=2, protocol=SHORT, network_protocol=SHORT)
    other = replace(table, **{change: None if change == "reference_ms" else "other"})  # type: ignore[arg-type]
    with pytest.raises(LatencyTableError, match="cannot be compared"):
        measure_space_networks(space, SHAPE, drawn(space, 1, 0), backend, table=other)
    # Latencies that no clock of this process measures do not depend on its speed.
    assert len(measure_space_networks(space, SHAPE, drawn(space, 1, 0), ComputedBackend(), table=other)) == 1


class Widths(ModelSpace):
    """Space whose last module depends on eleven choices."""

    def __init__(self) -> None:
        super().__init__()
        widths = [nni.choice(f"w{i}", [1, 2]) for i in range(11)]
        self.convs = nn.ModuleList(MutableConv2d(3, width, 1) for width in widths)
        self.last = LayerChoice([nn.Identity(), nn.ReLU()], label="last")

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([conv(x) for conv in self.convs], 1))


class Unexportable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x).real[..., None]


class Odd(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.layer = LayerChoice({"odd": Unexportable(), "plain": nn.Identity()}, label="layer")

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    with pytest.raises(SpaceError, match=r"'last.0' of Widths computes depends on .* choices at once .*fit a table"):
        measure_model_space(Widths(), SHAPE, ComputedBackend())
    with pytest.raises(SpaceError, match=r"fails with inputs of shape \[1, 5, 8, 8\]"):
        measure_model_space(EveryChoice(), (5, 8, 8), ComputedBackend())
    with pytest.raises(SpaceError, match=r"onnxruntime cannot take module 'layer.odd' .*make_backend\('torch'\)"):
        measure_model_space(Odd(), SHAPE, make_backend("onnxruntime"))
    with pytest.raises(InputError, match="takes other inputs than one batch of floating-point numbers"):
        measure_model_space(
            Sequences(), (torch.zeros(1, 5, dtype=torch.long), (5,)), make_backend("onnxruntime", dtype="int8")
        )
    with pytest.raises(InputError, match="an example input must be a tensor or the shape of one input"):
        measure_model_space(EveryChoice(), "3x8x8", ComputedBackend())
    with pytest.raises(InputError, match=r"have a batch of 4, and the backend measures a batch of 1; set its batch"):
        measure_model_space(EveryChoice(), torch.randn(4, *SHAPE), ComputedBackend())
    with pytest.raises(InputError, match="calibration networks must be a number from 0"):
        measure_model_space(EveryChoice(), SHAPE, ComputedBackend(), calibration_networks=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["candidates"].update(width=["4", "4"]), "'width' must have a list of different names"),
        (lambda c: c["parts"].append(c["parts"][0]), "two parts have the same labels"),
        (lambda c: c["parts"][0].update(labels=["wrong"]), "labels must be labels of the candidates"),
        (lambda c: c["parts"][0].update(entries="0, 1"), "entries must be a string of 1 items"),
        (lambda c: c["parts"][0].update(entries="0 999"), r"positions of operators from 0 to \d+, or '-', got '0 999'"),
        (lambda c: c["parts"][0].update(parameters="many"), "parameters must be numbers, got 'many'"),
        (lambda c: c["parts"][0].update(parameters="-1"), "parameters must be a number from 0"),
        (lambda c: c["parts"][0].update(multiply_adds="nan"), "multiply_adds must be a finite number"),
        (lambda c: c.update(parts=3), "parts must be a list"),
        (lambda c: c.update(extra=3), "extra"),
    ],
)
def test_damaged_tables_are_refused(change: Any, message: str, table: LatencyTable) -> None:
    content = table.to_dict()
    change(content["composition"])
    with pytest.raises(LatencyTableError, match=message):
        LatencyTable.from_dict(content)


def test_averaged_costs_are_means_over_the_networks(table: LatencyTable) -> None:
    space = EveryChoice()
    fixed, layers = table.own_costs().averaged
    known = [(s, cost_ms(space.freeze(s), torch.randn(1, *SHAPE))) for s in samples_of(space)]
    assert fixed + sum(np.mean(of) for of in layers.values()) == pytest.approx(np.mean([cost for _, cost in known]))
    for label, candidates in candidates_of(space).items():
        means = [np.mean([cost for s, cost in known if s[label] == candidate]) for candidate in candidates]
        assert np.array(layers[label]) - layers[label][0] == pytest.approx(np.array(means) - means[0])
    shown = "\n".join(layer_bars(table.own_costs()))
    assert f"every network  {fixed:.4g} ms" in shown


def test_a_measurement_changes_nothing_in_the_space() -> None:
    space = EveryChoice()
    before = {name: value.clone() for name, value in space.state_dict().items()}
    sample = next(samples_of(space))
    for training in (True, False):
        space.train(training)
        space.stem.eval()
        measure_model_space(space, SHAPE, ComputedBackend(), calibration_networks=2)
        measure_space_networks(space, SHAPE, [sample], ComputedBackend())
        measure_model_space(
            space, SHAPE, make_backend("torch"), calibration_networks=2, protocol=SHORT, network_protocol=SHORT
        )
        assert not space.stem.training
        assert all(m.training is training for m in space.modules() if m is not space.stem)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in space.modules())
    assert all(torch.equal(value, before[name]) for name, value in space.state_dict().items())


class TwoNames(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.choice = LayerChoice([nn.Linear(4, 4), nn.Identity()], label="c")
        self.again = self.choice

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.choice(x))


def test_a_module_with_two_names_is_refused() -> None:
    """NNI would build other networks than those that are measured."""
    with pytest.raises(SpaceError, match="'choice' and 'again' are the same module with choices"):
        measure_model_space(TwoNames(), (4,), ComputedBackend())
