"""NNI's strategies with latency: gradients, rewards, decoding within the budget, result files and resumption."""

from __future__ import annotations

import csv
import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.strategy import DARTS, RandomOneShot

from nni_proxyless import Architecture, LatencyTable, MobileNetV2Space
from nni_proxyless.decoding.checkpoint import SearchCheckpoint
from nni_proxyless.decoding.random_networks import draw_within
from nni_proxyless.errors import InputError, RecipeError
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search import run as search
from nni_proxyless.search.epoch_callback import EpochCallback
from nni_proxyless.search.make_strategy import make_strategy
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import STRATEGIES, Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.strategies.network_score import NetworkScore
from nni_proxyless.strategies.nni_strategies import (
    LatencyDARTS,
    LatencyENAS,
    LatencyGumbelDARTS,
    LatencyNniProxyless,
    RandomSearch,
    RewardTerm,
)
from nni_proxyless.strategies.proxyless import ProxylessNAS
from nni_proxyless.training.image_classification import ImageClassification

BASELINES = [name for name in STRATEGIES if name != "proxyless"]
DIFFERENTIABLE = [LatencyDARTS, LatencyGumbelDARTS, LatencyNniProxyless]
KEYS = {"default", "latency_ms", "expected_latency_ms", "entropy", "train_loss", "expected_over_budget"}


class Mine(RandomOneShot):
    """Strategy that this package does not know."""


class MyDARTS(DARTS):
    """User's subclass of NNI's DARTS."""


class MyProxyless(ProxylessNAS):
    """User's subclass of this package's strategy."""

    def __init__(self, *, colour: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.colour = colour


def a_module() -> ImageClassification:
    return ImageClassification(learning_rate=0.1, momentum=0.9, weight_decay=0.0, label_smoothing=0.0, total_steps=10)


def searched(recipe_file: Path, name: str, **settings: Any) -> tuple[Architecture, Path]:
    output = recipe_file.parent / name
    defaults = {"arch_learning_rate": 0.05, "epochs": 3, "warmup_epochs": 1}
    return run_search(prepare(Recipe.load(recipe_file, {**defaults, **settings})), output), output


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
@pytest.mark.parametrize("objective", ["add_linear", "mul_log"])
def test_latency_has_a_gradient_that_agrees_with_finite_differences(
    kind: Any, objective: str, tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    strategy = kind(latency=tiny_table, budget_fraction=0.8, objective=objective, latency_weight=0.7)
    strategy.mutate_model(MobileNetV2Space(tiny_spec))
    module = strategy.configure_oneshot_module(a_module())
    alphas = module.arch_parameters()
    with torch.no_grad():
        for alpha in alphas:
            alpha.copy_(torch.randn_like(alpha))
    loss = torch.tensor(1.3)
    total, _ = module.penalty(loss, module.export_probs)
    found = torch.autograd.grad(total, alphas)

    costs, budget = tiny_table.costs(tiny_spec), 0.8 * tiny_table.costs(tiny_spec).largest

    def by_hand(values: list[torch.Tensor]) -> float:
        """Compute the objective with an expectation over all architectures, in double precision."""
        probs = [torch.softmax(v, 0).tolist() for v in values]
        expected = 0.0
        for picks in itertools.product(*(range(len(p)) for p in probs)):
            choices = {label: of[i] for (label, of), i in zip(costs.candidates.items(), picks, strict=True)}
            expected += math.prod(p[i] for p, i in zip(probs, picks, strict=True)) * costs.of(choices)
        if objective == "mul_log":
            return 1.3 * (math.log(expected) / math.log(budget)) ** 0.7
        return 1.3 + 0.7 * (expected / budget - 1)

    exact = [alpha.detach().double() for alpha in alphas]
    assert total.item() == pytest.approx(by_hand(exact), rel=1e-5)
    for number, gradient in enumerate(found):
        assert gradient.abs().max() > 1e-4
        for i in range(len(gradient)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [value.clone() for value in exact]
                moved[number][i] += step
                ends.append(by_hand(moved))
            assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-5)


def test_enas_reward_is_the_papers(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    choices = {label: of[-1] for label, of in costs.candidates.items()}
    term = RewardTerm(costs, 2.0, 0.5)
    found, details = term(0.8, choices)
    assert found == pytest.approx(0.8 * (2.0 / costs.of(choices)) ** 0.5)
    assert details["latency_ms"] == costs.of(choices)


@pytest.mark.parametrize("name", BASELINES)
def test_each_strategy_keeps_the_budget_and_leaves_the_same_files(name: str, recipe_file: Path) -> None:
    records: list[Any] = []
    recipe = Recipe.load(recipe_file, {"strategy": name, "epochs": 3, "warmup_epochs": 1, "budget_fraction": 0.87})
    prepared = prepare(recipe)
    found = run_search(prepared, recipe_file.parent / "out", lambda record, number: records.append((number, record)))
    costs = prepared.table.costs(prepared.spec)
    assert found.strategy == name
    assert found.budget_ms == pytest.approx(0.87 * costs.largest)
    assert found.predicted_latency_ms == pytest.approx(costs.of(found.choices))
    assert found.predicted_latency_ms <= found.budget_ms
    assert [number for number, _ in records] == [0, 1, 2, None]
    assert all(set(record.metrics()) == KEYS for _, record in records)
    assert all(math.isfinite(value) for _, record in records for value in record.metrics().values())
    files = {path.name for path in (recipe_file.parent / "out").iterdir()}
    assert {"architecture.json", "weights.pt", "history.csv", "checkpoint.ckpt", "latency_table.yml"} <= files
    network = Architecture.load(recipe_file.parent / "out" / "architecture.json").build()
    network.load_state_dict(torch.load(recipe_file.parent / "out" / "weights.pt", weights_only=True))
    # The checkpoint can be decoded for another budget without NNI.
    checkpoint = SearchCheckpoint.load(recipe_file.parent / "out")
    again = checkpoint.decode(prepared.table, 0.8 * costs.largest)
    assert again.predicted_latency_ms is not None
    assert again.predicted_latency_ms <= 0.8 * costs.largest


@pytest.mark.parametrize("name", ["darts", "gumbel_darts", "nni_proxyless_builtin", "random"])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    name: str, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, folder = searched(recipe_file, "whole", strategy=name)
    original = EpochCallback._record

    class Killed(BaseException):
        pass

    def stop(self: Any, trainer: Any, number: int) -> None:
        original(self, trainer, number)
        if number == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(EpochCallback, "_record", stop)
        with pytest.raises(Killed):
            searched(recipe_file, "parts", strategy=name)
    parts, resumed = searched(recipe_file, "parts", strategy=name)
    assert parts.choices == whole.choices
    rows = [list(csv.DictReader((f / "history.csv").read_text().splitlines())) for f in (folder, resumed)]
    for one, other in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def test_enas_goes_on_where_it_was(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller and its optimizer are restored. Only the replay buffer of the interrupted epoch is lost."""
    settings = {"strategy": "enas", "strategy_args": {"batches_per_update": 2}}
    searched(recipe_file, "out", **settings)
    before = torch.load(recipe_file.parent / "out" / "checkpoint.ckpt", weights_only=True)["nni_proxyless"]["strategy"]
    taken: list[Any] = []
    original = LatencyENAS.load_extra_state

    def load(self: Any, state: Any) -> None:
        original(self, state)
        taken.append(self.oneshot_module.policy.optim.state_dict())

    monkeypatch.setattr(LatencyENAS, "load_extra_state", load)
    searched(recipe_file, "out", **settings)
    assert before["optimizer"]["state"]
    for key, values in before["optimizer"]["state"].items():
        assert torch.equal(taken[0]["state"][key]["exp_avg"], values["exp_avg"])


def test_enas_probabilities_change_nothing(recipe_file: Path) -> None:
    prepared = prepare(Recipe.load(recipe_file, {"strategy": "enas", "epochs": 2, "warmup_epochs": 0}))
    seen: list[Any] = []
    original = EpochCallback.decode

    def decode(self: Any) -> Any:
        state = torch.get_rng_state()
        first, second = self._strategy.path_probs(), self._strategy.path_probs()
        assert torch.equal(torch.get_rng_state(), state)
        seen.append(all(torch.equal(first[label], second[label]) for label in first))
        assert all(float(p.sum()) == pytest.approx(1.0) for p in first.values())
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpochCallback, "decode", decode)
        run_search(prepared, recipe_file.parent / "out")
    assert seen
    assert all(seen)


def test_random_search_takes_the_best_of_those_it_drew(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random networks are compared on the architecture part of the data, not on the held-out part."""
    scored: list[tuple[int, float]] = []
    original = NetworkScore.of

    def of(self: Any, sample: Any) -> float:
        value = original(self, sample)
        scored.append((len(self._validation().dataset), value))
        return value

    monkeypatch.setattr(NetworkScore, "of", of)
    prepared = prepare(
        Recipe.load(
            recipe_file,
            {
                "strategy": "random",
                "strategy_args": {"best_of": 5},
                "arch_fraction": 0.3,
                "epochs": 2,
                "warmup_epochs": 0,
            },
        )
    )
    made: list[Any] = []
    make = search.make_strategy
    monkeypatch.setattr(search, "make_strategy", lambda *args: made.append(make(*args)) or made[-1])
    found = run_search(prepared, recipe_file.parent / "out")
    size = len(prepared.splits.architecture)
    assert len(prepared.splits.held_out) != size
    ranked = [value for number, value in scored if number == size]
    assert len(ranked) == 5
    assert found.choices == made[0].finalists()[max(range(5), key=ranked.__getitem__)]


def test_drawn_networks_are_within_any_feasible_budget(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    for part in (0.0, 0.02, 0.3, 1.0):
        budget = costs.smallest + part * (costs.largest - costs.smallest)
        drawn = draw_within(costs.candidates, costs, budget, 8, random.Random(0))
        assert drawn
        assert len({tuple(choices.values()) for choices in drawn}) == len(drawn)
        assert all(costs.of(choices) <= budget * (1 + 1e-12) for choices in drawn)
    assert len(draw_within(costs.candidates, costs, costs.largest, 8, random.Random(0))) == 8


@pytest.mark.parametrize(
    "name", ["tests.strategies.test_nni_strategies:Mine", "tests.strategies.test_nni_strategies:MyDARTS"]
)
def test_a_strategy_of_the_users_own(name: str, recipe_file: Path) -> None:
    found, _ = searched(recipe_file, "out", strategy=name)
    assert found.strategy == name
    assert found.predicted_latency_ms is not None
    assert found.budget_ms is not None
    assert found.predicted_latency_ms <= found.budget_ms


def test_a_subclass_of_proxyless_has_its_keys(
    recipe_file: Path, tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    settings = {"strategy": "tests.strategies.test_nni_strategies:MyProxyless", "strategy_args": {"colour": "blue"}}
    settings |= {"arch_gradient": "reinforce", "reinforce_samples": 3, "warmup_epochs": 2, "epochs": 5, "seed": 7}
    made = make_strategy(Recipe.load(recipe_file, settings), tiny_table, tiny_spec, 4)
    assert isinstance(made, MyProxyless)
    assert made.colour == "blue"
    assert (made.arch.arch_gradient, made.arch.reinforce_samples, made.arch.warmup_epochs) == ("reinforce", 3, 2)
    assert made.seed == 7
    assert made.arch.effective_arch_weight_decay == 0.0
    with pytest.raises(RecipeError, match="does not take these arguments"):
        make_strategy(
            Recipe.load(recipe_file, {**settings, "strategy_args": {"color": "blue"}}), tiny_table, tiny_spec, 4
        )


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({}, 0.001),
        ({"arch_gradient": "two_path"}, 0.0),
        ({"arch_weight_decay": 0.0}, 0.0),
        ({"arch_gradient": "reinforce", "arch_weight_decay": 0.01}, 0.01),
    ],
)
def test_recipes_decay_the_architecture_with_the_full_gradient(
    settings: dict[str, Any], decay: float, recipe_file: Path, tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    made = make_strategy(Recipe.load(recipe_file, settings), tiny_table, tiny_spec, 4)
    assert isinstance(made, ProxylessNAS)
    assert made.arch.effective_arch_weight_decay == decay


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "dart"}, "unknown strategy 'dart'; did you mean 'darts'?"),
        ({"strategy": "darts", "objective": "budget"}, "only proxyless supports objective budget"),
        ({"strategy": "darts", "devices": 2}, "strategy darts runs on one device, got devices: 2"),
        ({"strategy_args": {"a": 1}}, "'strategy_args' are for other strategies"),
    ],
)
def test_bad_recipes_are_refused(settings: dict[str, Any], message: str, recipe_file: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(recipe_file, settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "no.such:Thing"}, "strategy no.such:Thing cannot be loaded"),
        ({"strategy": "torch:nothing"}, "cannot be loaded"),
        ({"strategy": "torch:Tensor"}, "is not a subclass of NNI's OneShotStrategy"),
        ({"strategy": "darts", "strategy_args": {"colour": 1}}, "does not take these arguments"),
        ({"strategy": "random", "strategy_args": {"best_of": 0}}, "best_of must be a whole number from 1"),
        ({"strategy": "darts", "strategy_args": {"penalty": {"scale": 1}}}, "has its own latency term"),
    ],
)
def test_bad_strategies_are_refused(settings: dict[str, Any], message: str, recipe_file: Path) -> None:
    with pytest.raises(InputError) as caught:
        searched(recipe_file, "out", **settings)
    assert message in str(caught.value)


def test_architecture_parameters_come_in_the_order_of_labels(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    strategy = LatencyDARTS(latency=tiny_table)
    strategy.mutate_model(MobileNetV2Space(tiny_spec))
    module = strategy.configure_oneshot_module(a_module())
    assert [id(a) for a in module.arch_parameters()] == [
        id(strategy._arch_parameters[layer.label]) for layer in tiny_spec.layers
    ]


def test_random_without_a_budget_draws_from_everything(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    strategy = RandomSearch(latency=tiny_table, best_of=80)
    strategy.mutate_model(MobileNetV2Space(tiny_spec))
    assert len(strategy.finalists()) == 80
