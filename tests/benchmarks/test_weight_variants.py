"""Other ways to train shared weights, against computations by hand, and the evaluation of all networks at once."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.network_tree import all_accuracies
from benchmarks.search_quality.variant_tables import layer_slopes, predicted, variant_table
from benchmarks.search_quality.weight_training import (
    AveragedWeights,
    SeparateMomenta,
    SharedMomenta,
    SharedNorms,
    SizeAwareRate,
    TrainedOtherwise,
    decay_exponent,
)
from benchmarks.search_quality.weight_variants import BASE, in_sample, with_recorded
from nni_proxyless import MobileNetV2Space
from nni_proxyless.decoding.ranking import additive_fit
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.blocks import MBConv
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.supernet.gated import decoded_state
from nni_proxyless.training.accuracy import accuracy, reestimate_batch_norm
from nni_proxyless.training.sgd import make_sgd


def test_all_networks_have_the_accuracies_of_networks_evaluated_alone(tiny_spec: SpaceSpec) -> None:
    torch.manual_seed(0)
    space = MobileNetV2Space(tiny_spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for block in space.modules():
        if isinstance(block, MBConv):
            nn.init.uniform_(block.bn3.weight)  # residual branches start at 0
    statistics = [torch.randn(16, 1, 8, 8) for _ in range(3)]
    images, labels = torch.randn(1100, 1, 8, 8), torch.randint(0, 10, (1100,))
    found = all_accuracies(space, statistics, images, labels)
    assert len(found) == tiny_spec.num_networks == 80
    wanted = all_accuracies(space, statistics, images, labels, lambda names: names[0] == "k3_e1")
    assert wanted == {name: value for name, value in found.items() if name.startswith("k3_e1 ")}
    names = [layer.label for layer in tiny_spec.layers]
    for candidates in list(found)[::7]:
        architecture = Architecture.of_space(tiny_spec, dict(zip(names, candidates.split(), strict=True)))
        network = architecture.build()
        network.load_state_dict(decoded_state(space, architecture.choices))
        reestimate_batch_norm(network, [(batch, torch.zeros(16)) for batch in statistics])
        assert found[candidates] == pytest.approx(accuracy(network, [(images, labels)]), abs=1.5 / 1100)


def test_the_rate_of_each_step_follows_the_size_of_its_network() -> None:
    assert decay_exponent(10.0, 10.0, 1000.0, 4.0) == pytest.approx(4.0)
    assert decay_exponent(1000.0, 10.0, 1000.0, 4.0) == pytest.approx(0.25)
    assert decay_exponent(100.0, 10.0, 1000.0, 4.0) == pytest.approx(2.125)  # half way in the logarithm
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.1
    sizes = [10.0, 1000.0, 100.0]
    callback = SizeAwareRate(lambda: sizes[step], 10.0, 1000.0, 4.0)
    for step, exponent in enumerate([4.0, 0.25, 2.125]):
        trainer = SimpleNamespace(global_step=30 + step, max_epochs=4, num_training_batches=20)
        callback.on_before_optimizer_step(trainer, None, optimizer)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * (1 - (30 + step) / 80) ** exponent)


def test_each_group_has_a_momentum_of_its_own() -> None:
    """Only the group of a step has v = 0.9 v + g, and w = w - 0.1 (g + 0.9 v) with Nesterov."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = make_sgd([weight], 0.1, 0.9)
    groups = ["small", "large", "small", "small", "large"]
    callback = SeparateMomenta(lambda: groups[step])
    momenta = {"small": torch.zeros(2), "large": torch.zeros(2)}
    expected = torch.zeros(2)
    for step, group in enumerate(groups):
        weight.grad = torch.tensor([1.0 + step, -2.0 * step])
        callback.on_before_optimizer_step(None, None, optimizer)
        optimizer.step()
        momenta[group] = 0.9 * momenta[group] + weight.grad
        expected = expected - 0.1 * (weight.grad + 0.9 * momenta[group])
        torch.testing.assert_close(weight.detach(), expected)
    assert set(callback.buffers) == {"small", "large"}
    torch.testing.assert_close(callback.buffers["large"][weight], momenta["large"])


def test_the_weights_become_the_mean_of_the_last_epochs() -> None:
    network = nn.Linear(3, 2)
    module = SimpleNamespace(training_module=network)
    callback, recorded = AveragedWeights(2), []
    for epoch in range(4):
        for batch in range(5):
            with torch.no_grad():
                for weight in network.parameters():
                    weight.add_(torch.randn_like(weight))
            recorded += [network.weight.detach().clone()] if epoch >= 2 else []
            trainer = SimpleNamespace(current_epoch=epoch, max_epochs=4, num_training_batches=5)
            callback.on_train_batch_end(trainer, module, None, None, batch)
    torch.testing.assert_close(network.weight.detach(), torch.stack(recorded).mean(0))


def test_candidates_share_the_weights_of_batch_norms(tiny_spec: SpaceSpec) -> None:
    space = MobileNetV2Space(tiny_spec)
    SharedNorms().on_train_start(None, SimpleNamespace(training_module=SimpleNamespace(model=space)))
    blocks = dict(space.blocks[2].named_children())
    small, large = blocks["k3_e1"], blocks["k5_e2"]
    with torch.no_grad():
        large.bn3.weight.fill_(3.0)
        large.bn2.bias.fill_(5.0)
        large.bn1.weight.fill_(7.0)
    assert bool((small.bn3.weight == 3.0).all())
    assert bool((blocks["k3_e2"].bn2.bias == 5.0).all())
    assert bool((blocks["k3_e2"].bn1.weight == 7.0).all())
    assert not bool((small.bn2.bias == 5.0).any())  # without an expansion, hidden channels have another meaning


def test_entangled_weights_share_their_momentum(tiny_spec: SpaceSpec) -> None:
    space = MobileNetV2Space(tiny_spec)
    optimizer = make_sgd(space.parameters(), 0.1, 0.9)
    SharedMomenta().on_train_start(SimpleNamespace(optimizers=[optimizer]), None)
    blocks = dict(space.blocks[2].named_children())
    small, large = (blocks[name].conv_dw.weight for name in ("k3_e2", "k5_e2"))
    for weight in (large, small):
        optimizer.zero_grad()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    margin = slice(1, 4)
    momentum = optimizer.state[large]["momentum_buffer"]
    assert bool((momentum[..., margin, margin] == 1.9).all())  # 0.9 * 1 + 1
    assert float(momentum[0, 0, 0, 0]) == 1.0
    assert bool((optimizer.state[small]["momentum_buffer"] == 1.9).all())


@pytest.mark.parametrize(
    "changes",
    [
        {"sandwich": True, "teach": 1.0},
        {"split": 2, "share_norms": True, "share_momenta": True},
        {"rate_exponent": 4.0, "momenta": "size", "averaged_epochs": 1, "residual_scale": 0.5},
        {"teach": 0.5, "momenta": "layer"},
    ],
)
def test_recipes_train_with_every_change(recipe_file: Path, changes: dict[str, Any]) -> None:
    recipe = Recipe.load(
        recipe_file,
        {
            "epochs": 2,
            "warmup_epochs": 0,
            "budget_fraction": 1.0,
            "strategy": "benchmarks.search_quality.weight_training:TrainedOtherwise",
            "strategy_args": {"best_of": 1, **changes},
        },
    )
    untrained = MobileNetV2Space(SpaceSpec.from_yaml(str(recipe_file.parent / "tiny.yml"))).state_dict()
    run_search(prepare(recipe), recipe_file.parent / "out")
    trained = TrainedOtherwise.trained.state_dict()
    assert set(trained) == set(untrained)
    assert all(bool(torch.isfinite(value).all()) for value in trained.values())
    assert float(trained["classifier.linear.bias"].abs().sum()) > 0  # it starts at 0


def test_slopes_of_accuracies_that_show_half_of_all_differences() -> None:
    names = [f"{first} {second}" for first in "ab" for second in "cde"]
    true = np.array([50.0, 52.0, 54.0, 51.0, 53.0, 55.0])
    truth: Any = SimpleNamespace(names=names, estimates=SimpleNamespace(accuracy=true))
    shared = np.array([name.count("b") * 0.005 + "cde".index(name[2]) * 0.02 for name in names])
    assert layer_slopes(np.arange(6), shared, truth) == pytest.approx([0.5, 1.0])
    known = np.array([0, 1, 2, 5])  # four of the six, which suffice for main effects
    assert layer_slopes(known, shared[known], truth) == pytest.approx([0.5, 1.0])


def test_accuracies_of_other_networks_are_predicted_as_those_of_all_are_smoothed() -> None:
    names = [f"{first} {second}" for first in "ab" for second in "cde"]
    truth: Any = SimpleNamespace(names=names)
    accuracies = np.array([0.5, 0.52, 0.55, 0.49, 0.53, 0.5])
    smoothed = additive_fit([dict(enumerate(name.split())) for name in names], accuracies.tolist())
    assert predicted(np.arange(6), accuracies, truth) == pytest.approx(smoothed)
    known = np.array([0, 4])  # the other networks have one of their candidates each, or none
    # K + 0.1 I = [[1.1, 0], [0, 1.1]], so each deviation of ±0.015 from the mean is divided by 1.1.
    own = predicted(known, accuracies[known], truth)
    assert own[[0, 4]] == pytest.approx([0.515 - 0.015 / 1.1, 0.515 + 0.015 / 1.1])
    assert own[1] == pytest.approx(0.515)  # a of the worse network, d of the better one
    assert own[2] == pytest.approx(0.515 - 0.5 * 0.015 / 1.1)


def test_the_sample_has_all_candidates_as_often() -> None:
    spec = GroundTruth().spec
    names = [names for names in itertools.product(*(layer.names for layer in spec.layers)) if in_sample(names)]
    assert len(names) == 80
    for layer, column in zip(spec.layers, zip(*names, strict=True), strict=True):
        assert [column.count(name) for name in layer.names] == [80 // len(layer.names)] * len(layer.names)
    assert all(in_sample(of[:length]) for of in names for length in range(4))


def test_the_table_pairs_supernets_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three common seeds: the differences 0.01, 0.02 and 0.03 have the mean 0.02 and the standard error 0.0058."""
    monkeypatch.setattr(
        "benchmarks.search_quality.variant_tables._values",
        lambda lines, truth: [lines[0], 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0],
    )
    found: Any = {
        "base": {0: [0.8], 1: [0.7], 2: [0.6], 7: [0.1]},  # 0.55 ± 0.31
        "changed": {0: [0.81], 1: [0.72], 2: [0.63]},
    }
    base, line = variant_table(found, None, "base").splitlines()[-2:]  # type: ignore[arg-type]
    assert "| 0–2, 7 | 0.55 ± 0.31 |" in base
    assert f"| 0–2 | 0.72 (+0.02 ± {0.01 / math.sqrt(3):.2f}) |" in line


def test_the_base_is_completed_by_recorded_supernets() -> None:
    names = ["k3_e1 k3_e1 k3_e1 k3_e1", "k3_e1 k3_e1 k3_e1 k5_e6"]  # only the first is in the sample
    recorded: Any = {
        (variant, seed): [{"architecture": name, "accuracy": "0.4", "training_seconds": "30"} for name in names]
        for variant, seed in (("random", 0), ("random", 1), ("fair", 2))
    }
    own: Any = [{"architecture": names[0], "accuracy": "0.5", "cpu_seconds": "60"}]
    found = with_recorded({"other": {0: own}, BASE: {0: own}}, recorded)
    assert found["other"] == {0: own}
    assert found[BASE] == {0: own, 1: [{"architecture": names[0], "accuracy": "0.4"}]}
