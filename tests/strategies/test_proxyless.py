"""ProxylessNAS with NNI's API: it replaces DARTS, finds the known best paths, and exports without side effects."""

from __future__ import annotations

import copy
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from nni.mutable import MutableExpression
from nni.nas.evaluator.pytorch import Classification, DataLoader, Lightning
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.supermodule._expression_utils import expression_expectation
from nni.nas.profiler import ExpressionProfiler
from nni.nas.profiler.pytorch.flops import FlopsProfiler
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless import LatencyProfiler, LatencyTable, MobileNetV2Space, ProxylessNAS
from nni_proxyless.decoding.ranking import additive_fit
from nni_proxyless.errors import InputError, SpaceError
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.make_strategy import make_strategy
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY
from tests.supernet.test_binary_gates import finite_difference
from tests.supernet.test_supernet import Zoo


class Absolute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Signs(ModelSpace):
    """Space of 9 networks: two layers of three fixed candidates, and a trainable classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice({"zero": Zero(), "absolute": Absolute(), "keep": nn.Identity()}, label="first")
        self.second = LayerChoice({"absolute": Absolute(), "keep": nn.Identity(), "zero": Zero()}, label="second")
        self.classifier = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.second(self.first(x)))


def sign_data(seed: int, count: int = 512) -> TensorDataset:
    """Draw data whose class is the sign of the first feature, so only networks that keep signs can classify it."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long())


def classification(data: Callable[[int], TensorDataset], classes: int, batch: int, rate: float, epochs: int) -> Any:
    """Create NNI's own evaluator without output, with separate data for the weights and the architecture."""
    loaders = [
        DataLoader(data(seed), batch_size=batch, shuffle=True, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    ]
    return Classification(
        train_dataloaders=loaders[0],
        val_dataloaders=loaders[1],
        num_classes=classes,
        learning_rate=rate,
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )


def evaluator(epochs: int = 4) -> Any:
    return classification(sign_data, classes=2, batch=32, rate=0.05, epochs=epochs)


def run(space: ModelSpace, evaluator: Lightning, strategy: Any, folder: Path) -> NasExperiment:
    config = NasExperimentConfig.default(space, evaluator, strategy)
    config.experiment_working_directory = folder
    experiment = NasExperiment(space, evaluator, strategy, config)
    try:
        experiment.run()
    finally:
        experiment.stop()
    return experiment


class Costs(ExpressionProfiler):
    """User's own profiler, which sums the costs of all candidates."""

    def __init__(self, model_space: ModelSpace, costs: dict[str, float]) -> None:
        super().__init__(model_space)
        self.expression: Any = 0.0
        for mutable in model_space.simplify().values():
            cost: Any = 0.0
            for name, value in costs.items():
                cost = MutableExpression.condition(mutable == name, value, cost)
            self.expression = self.expression + cost


def accuracy_of(choices: dict[str, str]) -> float:
    """Train a single network, and compute its accuracy. The search should find the network with the highest one."""
    torch.manual_seed(0)
    network = Signs().freeze(choices)
    x, y = sign_data(0).tensors
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    x, y = sign_data(1).tensors
    return float((network(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("arch_gradient", ["two_path", "full"])
def test_search_finds_the_best_path_known_by_enumeration(arch_gradient: Any, tmp_path: Path) -> None:
    names = {"first": ("zero", "absolute", "keep"), "second": ("absolute", "keep", "zero")}
    alone = {picks: accuracy_of(dict(zip(names, picks, strict=True))) for picks in itertools.product(*names.values())}
    best = max(alone, key=alone.__getitem__)
    assert alone[best] > 0.95
    assert sorted(alone.values())[-2] < 0.9  # all other networks are clearly worse
    found = []
    for seed in range(10):
        pl.seed_everything(seed)
        strategy = ProxylessNAS(
            arch_gradient=arch_gradient, arch_learning_rate=0.05, arch_update_every=1, arch_weight_decay=0.0, seed=seed
        )
        run(Signs(), evaluator(), strategy, tmp_path)
        found.append(tuple(strategy.most_likely_choices().values()))
    assert found.count(best) >= 9, found


def test_a_dominating_penalty_finds_the_cheapest(tmp_path: Path) -> None:
    for seed in range(3):
        pl.seed_everything(seed)
        space = Signs()
        profiler = Costs(space, {"keep": 5.0, "absolute": 2.0, "zero": 3.0})
        strategy = ProxylessNAS(
            penalty={"profiler": profiler, "baseline": 1.0, "scale": 100.0}, arch_learning_rate=0.05, seed=seed
        )
        run(space, evaluator(), strategy, tmp_path)
        assert strategy.most_likely_choices() == {"first": "absolute", "second": "absolute"}


def image_data(seed: int, count: int = 96) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = 0.3 * torch.randn(count, 1, 8, 8, generator=generator)
    for row, label in enumerate(labels.tolist()):
        images[row, 0, 2 * label : 2 * label + 2] += 1.0
    return TensorDataset(images, labels)


def image_evaluator(epochs: int) -> Any:
    return classification(image_data, classes=3, batch=24, rate=0.01, epochs=epochs)


@pytest.mark.parametrize("arch_gradient", ["two_path", "full"])
def test_a_dominating_latency_finds_the_fastest(
    arch_gradient: Any, tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path
) -> None:
    costs = tiny_table.costs(tiny_spec)
    strategy = ProxylessNAS(
        latency=tiny_table, latency_weight=1000.0, arch_gradient=arch_gradient, arch_learning_rate=0.1, seed=0
    )
    run(MobileNetV2Space(tiny_spec), image_evaluator(12), strategy, tmp_path)
    architecture = strategy.export_architecture(target="made up")
    assert architecture.predicted_latency_ms == pytest.approx(costs.smallest)
    assert strategy.oneshot_module.expected_latency_ms() < costs.expected(
        {label: torch.full((len(c),), 1 / len(c)) for label, c in costs.layers.items()}
    )


def test_darts_and_proxyless_swap_in_the_same_script(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    for strategy in (DARTS(), ProxylessNAS()):
        space = MobileNetV2Space(tiny_spec)
        experiment = run(space, image_evaluator(1), strategy, tmp_path)
        (sample,) = experiment.export_top_models(formatter="dict")
        assert sample.keys() == {layer.label for layer in tiny_spec.layers}
        (network,) = experiment.export_top_models(formatter="instance")
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_nnis_hub_space_is_searched_under_nnis_experiment(tmp_path: Path) -> None:
    from nni.nas.hub.pytorch import ProxylessNAS as HubSpace

    images = TensorDataset(torch.randn(8, 3, 32, 32), torch.randint(0, 3, (8,)))
    hub = image_evaluator(1)
    hub.train_dataloaders, hub.val_dataloaders = (DataLoader(images, batch_size=4) for _ in range(2))
    strategy = ProxylessNAS(arch_learning_rate=0.1)
    experiment = run(HubSpace(num_labels=3, width_mult=0.25), hub, strategy, tmp_path)
    (sample,) = experiment.export_top_models(formatter="dict")
    assert sample["s2_depth"] in {1, 2, 3, 4}
    assert sample["s7_i0"] in {f"k{k}e{e}" for k in (3, 5, 7) for e in (3, 6)}
    moved = {label for label, gate in strategy._gates.items() if float(gate.alpha.detach().abs().sum()) > 0}
    always = {f"s{s}_depth" for s in range(2, 7)} | {f"s{s}_i0" for s in range(2, 8)}  # deeper layers may not have run
    assert always <= moved
    (network,) = experiment.export_top_models(formatter="instance")
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_export_is_deterministic_and_free_of_side_effects(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path
) -> None:
    strategy = ProxylessNAS(latency=tiny_table, arch_learning_rate=0.1, seed=3)
    experiment = run(MobileNetV2Space(tiny_spec), image_evaluator(2), strategy, tmp_path)
    module = strategy.oneshot_module
    before = copy.deepcopy(module.state_dict())
    samples = {label: gate.sample for label, gate in strategy._gates.items()}
    state = torch.get_rng_state(), module._paths.generator.get_state()
    first, second = strategy.export_architecture(), strategy.export_architecture()
    exported = [experiment.export_top_models(formatter="dict") for _ in range(2)]
    assert first == second
    assert exported[0] == exported[1] == [dict(first.choices)]
    assert {label: gate.sample for label, gate in strategy._gates.items()} == samples
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert torch.equal(module._paths.generator.get_state(), state[1])
    assert Architecture.from_dict(first.to_dict()) == first


def test_export_within_a_budget(tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path) -> None:
    strategy = ProxylessNAS(latency=tiny_table, latency_weight=0.0, arch_learning_rate=0.1, seed=3)
    run(MobileNetV2Space(tiny_spec), image_evaluator(3), strategy, tmp_path)
    free = strategy.export_architecture()
    costs = tiny_table.costs(tiny_spec)
    assert free.predicted_latency_ms is not None
    budget = (costs.smallest + free.predicted_latency_ms) / 2
    found = strategy.export_architecture(budget_ms=budget)
    assert found.predicted_latency_ms is not None
    assert found.predicted_latency_ms <= budget < free.predicted_latency_ms
    assert found.budget_ms == budget
    assert strategy.export_architecture(budget_ms=costs.largest).choices == free.choices
    with pytest.raises(InputError, match="the fastest takes"):
        strategy.export_architecture(budget_ms=0.1)
    with pytest.raises(InputError, match="needs a search with latency="):
        ProxylessNAS().export_architecture(budget_ms=1.0)


def test_architecture_steps_through_lightning_leave_weights_and_buffers_alone(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nni_proxyless.strategies.lightning_module import ProxylessLightningModule

    original = ProxylessLightningModule.architecture_step
    changed: list[set[str]] = []

    def watched(self: ProxylessLightningModule, batch: Any, batch_idx: int) -> Tensor:
        before = {k: v.clone() for k, v in self.training_module.state_dict().items()}
        value = original(self, batch, batch_idx)
        after = self.training_module.state_dict()
        changed.append({k for k in before if not torch.equal(before[k], after[k])})
        return value

    monkeypatch.setattr(ProxylessLightningModule, "architecture_step", watched)
    strategy = ProxylessNAS(latency=tiny_table, warmup_epochs=1, arch_update_every=2, arch_learning_rate=0.1)
    run(MobileNetV2Space(tiny_spec), image_evaluator(3), strategy, tmp_path)
    assert len(changed) == 2 * 2  # every second of 4 batches, in the last two of three epochs
    assert set().union(*changed)
    assert all(name.endswith("alpha") for names in changed for name in names)


@pytest.mark.parametrize("after", ["fair", "probable"])
def test_fair_weight_steps_give_each_candidate_its_turn_all_through(
    tiny_spec: SpaceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: Literal["fair", "probable"]
) -> None:
    from nni_proxyless.strategies.lightning_module import ProxylessLightningModule

    original = ProxylessLightningModule.weight_step
    active: dict[str, list[int]] = {}

    def watched(self: ProxylessLightningModule, batch: Any, batch_idx: int) -> Tensor:
        value = original(self, batch, batch_idx)
        for label, gate in self._gates.items():
            active.setdefault(label, []).append(gate.sample.active)
        return value

    monkeypatch.setattr(ProxylessLightningModule, "weight_step", watched)
    strategy = ProxylessNAS(
        warmup_epochs=1, warmup_sampling="fair", weight_sampling=after, arch_learning_rate=0.5, seed=0
    )
    run(MobileNetV2Space(tiny_spec), image_evaluator(5), strategy, tmp_path)
    fair = []
    for layer in tiny_spec.layers:
        steps, count = active[layer.label], len(layer.names)
        assert len(steps) == 20  # 4 batches in each of 5 epochs
        rounds = [steps[i : i + count] for i in range(0, len(steps) - count + 1, count)]
        assert sorted(rounds[0][:4]) == sorted(set(rounds[0][:4]))  # in the warm-up, no path runs twice
        fair.append(all(sorted(of) == list(range(count)) for of in rounds))
    assert all(fair) if after == "fair" else not any(fair)


def outside_of_a_trainer(strategy: ProxylessNAS, spec: SpaceSpec) -> Any:
    """Create the strategy's Lightning module such that its architecture steps can be called without a trainer."""
    from nni_proxyless.supernet.freezing import WeightFreezer

    torch.manual_seed(0)
    space = strategy.mutate_model(MobileNetV2Space(spec))
    module: Any = strategy.configure_oneshot_module(image_evaluator(1).module)
    module.training_module.set_model(space)
    strategy._mutated_model_space = RawFormatModelSpace(space, None)  # NNI does the same when it runs a strategy
    module.log = lambda *_a, **_k: None
    module.training_module.log = module.log
    module.manual_backward = lambda loss: loss.backward()
    optimizer = module.configure_architecture_optimizers()
    module.architecture_optimizers = lambda: optimizer
    module._freezer = WeightFreezer(module.training_module)
    return module


@pytest.mark.parametrize("objective", ["budget", "add_linear"])
def test_of_equal_finalists_the_one_that_computes_more_is_preferred_within_a_budget(
    objective: Literal["budget", "add_linear"], tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    """Before training, all networks are equally likely. So only multiply-adds can change the smoothed accuracies."""
    strategy = ProxylessNAS(latency=tiny_table, objective=objective, budget_fraction=1.0, finalists=8)
    outside_of_a_trainer(strategy, tiny_spec)
    finalists, accuracies = strategy.finalists(), [0.3] * 7 + [0.4]
    added = np.subtract(strategy.rank(finalists, accuracies), additive_fit(finalists, accuracies))
    numbers = [Architecture.of_space(tiny_spec, choices).multiply_adds for choices in finalists]
    if objective == "budget":
        assert spearmanr(added, numbers).statistic == pytest.approx(1)
    else:
        assert added.tolist() == [0.0] * 8


@pytest.mark.parametrize("draws", [1, 2])
def test_two_path_step_moves_only_the_sampled_paths(tiny_spec: SpaceSpec, tiny_table: LatencyTable, draws: int) -> None:
    strategy = ProxylessNAS(
        latency=tiny_table, arch_gradient="two_path", arch_learning_rate=0.3, arch_samples=draws, seed=1
    )
    module = outside_of_a_trainer(strategy, tiny_spec)
    x, y = image_data(0).tensors
    drawn: list[set[int]] = []
    for step in range(6):
        before = {k: v.detach().clone() for k, v in module.path_probs().items()}
        module.architecture_step((x[:24], y[:24]), step)
        for (label, gate), sample in zip(strategy._gates.items(), module._compared, strict=True):
            assert set(gate.sample.paths) <= set(sample.paths)
            drawn.append(set(sample.paths))
            others = [i for i in range(gate.num_candidates) if i not in sample.paths]
            after = gate.probs().detach()
            torch.testing.assert_close(after[others], before[label][others], rtol=0, atol=1e-6)
            assert not torch.allclose(after, before[label])
    assert max(len(paths) for paths in drawn) == min(2 * draws, max(len(layer.names) for layer in tiny_spec.layers))


@pytest.mark.parametrize("gradient", ["two_path", "full"])
def test_several_draws_give_the_mean_of_their_gradients(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, gradient: Literal["two_path", "full"]
) -> None:
    x, y = image_data(0).tensors
    batch = (x[:24], y[:24])
    several = outside_of_a_trainer(
        ProxylessNAS(latency=tiny_table, arch_gradient=gradient, arch_samples=3, seed=1), tiny_spec
    )
    several.architecture_step(batch, 0)
    one = outside_of_a_trainer(ProxylessNAS(latency=tiny_table, arch_gradient=gradient, seed=1), tiny_spec)
    gradients = []
    for _ in range(3):
        with one._freezer.frozen():
            one._gate_step(batch, 0)
        gradients.append([alpha.grad.clone() for alpha in one.arch_parameters()])
        for alpha in one.arch_parameters():
            alpha.grad = None
    assert any(not torch.allclose(first, second) for first, second in zip(*gradients[:2], strict=True))
    for alpha, *each in zip(several.arch_parameters(), *gradients, strict=True):
        torch.testing.assert_close(alpha.grad, torch.stack(each).mean(0), rtol=1e-4, atol=1e-7)


def test_nnis_penalty_has_the_gradient_of_its_expectation(tiny_spec: SpaceSpec) -> None:
    """Compare a FLOPs penalty with the mean over all networks, and its gradient with finite differences."""
    space = MobileNetV2Space(tiny_spec)
    profiler = FlopsProfiler(space, torch.randn(1, 1, 8, 8))
    baseline = float(profiler.profile({layer.label: layer.names[0] for layer in tiny_spec.layers}))
    strategy = ProxylessNAS(penalty={"profiler": profiler, "baseline": baseline, "scale": 0.7}, arch_gradient="full")
    strategy.mutate_model(space)
    module = strategy.configure_oneshot_module(image_evaluator(1).module)
    module.log = module.log_dict = lambda *_a, **_k: None
    gates = strategy._gates
    for gate in gates.values():
        nn.init.normal_(gate.alpha)
        gate.alpha.data = gate.alpha.data.double()
        gate.draw_for_gradient("full")
    loss = torch.tensor(1.5, dtype=torch.float64)
    value = module.search_objective(loss)
    value.backward()

    def enumerated(alphas: dict[str, Tensor]) -> Tensor:
        expected = torch.zeros((), dtype=torch.float64)
        for picks in itertools.product(*(range(g.num_candidates) for g in gates.values())):
            sample = {k: g.candidates[i] for (k, g), i in zip(gates.items(), picks, strict=True)}
            p = math.prod(torch.softmax(alphas[k], 0)[i] for k, i in zip(gates, picks, strict=True))
            expected = expected + p * profiler.profile(sample)
        return loss + 0.7 * (expected / baseline - 1)

    fixed = {label: gate.alpha.detach().clone() for label, gate in gates.items()}
    assert float(value.detach()) == pytest.approx(float(enumerated(fixed)))
    for label, gate in gates.items():
        numeric = finite_difference(lambda a, label=label: enumerated({**fixed, label: a}), fixed[label])
        torch.testing.assert_close(gate.alpha.grad, numeric, rtol=1e-5, atol=1e-8)
        assert float(gate.alpha.grad.abs().max()) > 1e-4


def test_a_fused_optimizer_of_entangled_weights_is_refused(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    """PyTorch's fused kernels treat a view with gaps as dense."""

    def search(entangled: bool, fused: bool) -> None:
        training = image_evaluator(1)
        training.module.optimizer = partial(torch.optim.Adam, fused=fused)
        run(MobileNetV2Space(tiny_spec, entangled=entangled), training, ProxylessNAS(), tmp_path)

    search(entangled=False, fused=True)
    search(entangled=True, fused=False)
    with pytest.raises(InputError, match=r"fused=True, .* give fused=False, or MobileNetV2Space\(entangled=False\)"):
        search(entangled=True, fused=True)


def test_a_loss_that_is_not_finite_says_where_it_appeared(tmp_path: Path) -> None:
    from nni_proxyless.errors import RunError

    x, y = sign_data(0).tensors
    x[70, 0] = torch.inf
    loaders = [DataLoader(TensorDataset(x, y), batch_size=32), DataLoader(sign_data(1), batch_size=32)]
    bad = evaluator()
    bad.train_dataloaders, bad.val_dataloaders = loaders
    with pytest.raises(
        RunError, match=r"the loss of the weights became nan in epoch [12], step 3; lower the learning rate"
    ):
        run(Signs(), bad, ProxylessNAS(arch_gradient="two_path", seed=2), tmp_path)


def test_latency_profiler_is_the_table(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    profiler = LatencyProfiler(MobileNetV2Space(tiny_spec), tiny_table)
    costs = tiny_table.costs(tiny_spec)
    for picks in itertools.product(*(layer.names for layer in tiny_spec.layers)):
        choices = {layer.label: name for layer, name in zip(tiny_spec.layers, picks, strict=True)}
        assert profiler.profile(choices) == pytest.approx(costs.of(choices))
    uniform = {layer.label: dict.fromkeys(layer.names, 1 / len(layer.names)) for layer in tiny_spec.layers}
    probs = {label: torch.tensor(list(p.values()), dtype=torch.float64) for label, p in uniform.items()}
    assert expression_expectation(profiler.expression, uniform) == pytest.approx(float(costs.expected(probs)))


def test_latency_and_penalty_combine(tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path) -> None:
    space = MobileNetV2Space(tiny_spec)
    flops = FlopsProfiler(space, torch.randn(1, 1, 8, 8))
    strategy = ProxylessNAS(latency=tiny_table, penalty={"profiler": flops, "baseline": 1e5, "scale": 0.1})
    run(space, image_evaluator(1), strategy, tmp_path)
    assert strategy.export_architecture().predicted_latency_ms is not None


def test_a_space_that_does_not_describe_itself_has_no_latency(tiny_table: LatencyTable) -> None:
    with pytest.raises(SpaceError, match=r"latency= needs a MobileNetV2Space.*Signs does not.*penalty="):
        ProxylessNAS(latency=tiny_table).mutate_model(Signs())
    with pytest.raises(SpaceError, match="LatencyProfiler: Signs does not say which operators"):
        LatencyProfiler(Signs(), tiny_table)


def test_architecture_of_a_space_of_the_users_own(tmp_path: Path) -> None:
    strategy = ProxylessNAS()
    run(Signs(), evaluator(1), strategy, tmp_path)
    found = strategy.export_architecture()
    loaded = Architecture.load(found.save(tmp_path / "architecture.json"))
    assert loaded == found
    assert isinstance(Signs().freeze(dict(loaded.choices)), nn.Module)
    with pytest.raises(InputError, match="model class of your own"):
        loaded.build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "add_lin"}, r"unknown objective 'add_lin'; did you mean 'add_linear'\?"),
        ({"arch_gradient": "one_path"}, r"unknown arch_gradient 'one_path'.*full, reinforce, two_path"),
        ({"budget_ms": 3.0}, "budget_ms=3.0 needs latency="),
        ({"latency_weight": -1.0}, "latency_weight must be a number of at least 0, got -1.0"),
        ({"arch_learning_rate": 0.0}, "arch_learning_rate must be a number greater than 0"),
        ({"arch_update_every": 0}, "arch_update_every must be a whole number from 1, got 0"),
        ({"warmup_epochs": 1.5}, "warmup_epochs must be a whole number from 0, got 1.5"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProxylessNAS(**arguments)


def test_alphas_come_in_the_same_order_in_every_process() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore');"
        "from tests.supernet.test_supernet import Zoo; from nni_proxyless import ProxylessNAS;"
        "s = ProxylessNAS(); s.mutate_model(Zoo()); print('order', list(s._gates))"
    )
    here = ProxylessNAS()
    here.mutate_model(Zoo())
    orders = {f"order {list(here._gates)}"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=REPOSITORY, env={**os.environ, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    orders.add(done.stdout.strip().splitlines()[-1])
    assert orders == {"order ['depth', 'half', 'inner', 'inputs', 'outer', 'pair', 'shared']"}


def test_equal_seeds_give_equal_searches(tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path) -> None:
    alphas = []
    for _ in range(2):
        pl.seed_everything(4)
        strategy = ProxylessNAS(latency=tiny_table, arch_learning_rate=0.1, seed=4)
        run(MobileNetV2Space(tiny_spec), image_evaluator(2), strategy, tmp_path)
        alphas.append([a.detach().clone() for a in strategy.oneshot_module.arch_parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*alphas, strict=True))


@pytest.mark.parametrize(
    ("settings", "gradient", "every"),
    [
        ({}, "full", 2),
        ({"arch_update_every": 1}, "full", 1),
        ({"arch_gradient": "two_path"}, "two_path", 1),
        ({"arch_gradient": "reinforce"}, "reinforce", 1),
        ({"arch_gradient": "two_path", "arch_update_every": 5}, "two_path", 5),
    ],
)
def test_recipes_take_the_gradient_of_all_paths_half_as_often_as_that_of_two(
    settings: dict[str, Any], gradient: str, every: int, tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    strategy = make_strategy(Recipe.from_dict(settings), tiny_table, tiny_spec, steps_per_epoch=10)
    assert isinstance(strategy, ProxylessNAS)
    assert (strategy.arch.arch_gradient, strategy.arch.effective_arch_update_every) == (gradient, every)
