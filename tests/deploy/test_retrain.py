"""Retraining: its training data, interruptions, recipe and model card."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nni_proxyless import Architecture
from nni_proxyless.data.splits import load_splits
from nni_proxyless.deploy.model_card import CARD_SCHEMA
from nni_proxyless.deploy.retrain import Retraining, ema_decay, prepare_retraining, run_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import ArchitectureError, DataError, RecipeError, RunError
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import read_weights, save_weights
from nni_proxyless.training.accuracy import accuracies
from nni_proxyless.training.cpu_kernels import DepthwiseConv2d, accelerate
from nni_proxyless.training.image_classification import warmup_cosine
from tests.helpers import read_csv

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "k3_e1", "stage2_layer1": "k3_e1"}
SETTINGS: dict[str, Any] = {"epochs": 3, "warmup_epochs": 1, "batch_size": 64, "learning_rate": 0.1, "threads": 1}


@pytest.fixture
def found(tmp_path: Path, tiny_spec: SpaceSpec) -> Path:
    """Folder with the architecture and the recipe of a search."""
    spec = replace(tiny_spec, classes=10)
    folder = tmp_path / "found"
    Architecture.of_space(spec, CHOICES, target="device", budget_ms=2.0).save(folder / "architecture.json")
    (folder / "recipe.yml").write_text(yaml.safe_dump({"data": "digits", "seed": 3, "held_out_fraction": 0.3}))
    return folder


def recipe_of(found: Path, **settings: Any) -> RetrainRecipe:
    return RetrainRecipe.for_architecture(str(found), {**SETTINGS, **settings}, None)


def same(first: Path, second: Path) -> bool:
    mine, theirs = read_weights(first), read_weights(second)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_data_and_their_split_are_those_of_the_search(found: Path) -> None:
    recipe = recipe_of(found)
    assert (recipe.split_seed, recipe.held_out_fraction, recipe.data) == (3, 0.3, "digits")
    splits = prepare_retraining(recipe).splits
    search = load_splits("digits", (1, 8, 8), seed=3, held_out_fraction=0.3)
    assert splits.held_out.indices == search.held_out.indices
    learnt = {*search.weights.indices, *search.architecture.indices}
    assert set(splits.training.indices) == learnt
    assert not learnt & set(splits.held_out.indices)


def test_a_retraining_that_is_killed_after_its_last_epoch_ends_with_the_same_weights(
    found: Path, tmp_path: Path
) -> None:
    """Only the moving average is evaluated, so the last weights must be the average, not those of the last step."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_retraining(prepare_retraining(recipe_of(found)), whole)

    class Killed(BaseException):
        pass

    def kill(_record: Any, number: int | None) -> None:
        if number == 2:
            raise Killed

    with pytest.raises(Killed):
        run_retraining(prepare_retraining(recipe_of(found)), parts, kill)
    assert not (parts / "weights_last.pt").exists()
    run_retraining(prepare_retraining(recipe_of(found)), parts)
    for name in ("weights.pt", "weights_last.pt", "architecture.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    average = torch.load(parts / "checkpoint.ckpt", weights_only=True)["callbacks"]["_Epochs"]["average"]
    raw = torch.load(parts / "checkpoint.ckpt", weights_only=True)["state_dict"]
    last = read_weights(parts / "weights_last.pt")
    assert all(torch.equal(value, average[f"module.{key}"]) for key, value in last.items())
    assert not all(torch.equal(value, raw[f"_model.{key}"]) for key, value in last.items())


def test_an_interrupted_retraining_ends_with_the_same_weights(found: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_retraining(prepare_retraining(recipe_of(found, mixup_alpha=0.2)), whole)

    class Killed(BaseException):
        pass

    def kill(_record: Any, number: int | None) -> None:
        if number == 1:
            raise Killed

    with pytest.raises(Killed):
        run_retraining(prepare_retraining(recipe_of(found, mixup_alpha=0.2)), parts, kill)
    assert [row["epoch"] for row in read_csv(parts / "history.csv")] == ["1", "2"]
    assert not (parts / "model_card.json").exists()
    numbers: list[int | None] = []
    run_retraining(prepare_retraining(recipe_of(found, mixup_alpha=0.2)), parts, lambda _, n: numbers.append(n))
    assert numbers == [2, None]
    assert same(whole / "weights.pt", parts / "weights.pt")
    assert same(whole / "weights_last.pt", parts / "weights_last.pt")
    kept = ("epoch", "default", "train_loss")
    histories = [[{k: row[k] for k in kept} for row in read_csv(folder / "history.csv")] for folder in (whole, parts)]
    assert histories[0] == histories[1]
    # The retraining is finished, so running it again trains nothing.
    again: list[int | None] = []
    run_retraining(prepare_retraining(recipe_of(found, mixup_alpha=0.2)), parts, lambda _, n: again.append(n))
    assert again == [None]
    # With another recipe, the retraining starts from the beginning.
    run_retraining(prepare_retraining(recipe_of(found, epochs=2)), parts)
    assert len(read_csv(parts / "history.csv")) == 2


def test_the_kernels_of_the_cpu_train_the_same_network(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 1, "warmup_epochs": 0, "learning_rate": 0.01, "label_smoothing": 0.0}
    used: list[type[Any]] = []

    def count(network: Any) -> Any:
        used.extend(type(module) for module in accelerate(network).modules())
        return network

    monkeypatch.setattr("nni_proxyless.deploy.retrain.accelerate", count)
    run_retraining(prepare_retraining(recipe_of(found, **settings)), tmp_path / "fast")
    assert DepthwiseConv2d in used
    monkeypatch.setattr("nni_proxyless.deploy.retrain.accelerate", lambda network: network)
    run_retraining(prepare_retraining(recipe_of(found, **settings)), tmp_path / "plain")
    fast, plain = (read_weights(tmp_path / name / "weights_last.pt") for name in ("fast", "plain"))
    assert list(fast) == list(plain)
    for key, values in plain.items():
        torch.testing.assert_close(fast[key], values, rtol=1e-3, atol=1e-4)


def test_the_model_card_says_what_was_done(found: Path, tmp_path: Path) -> None:
    prepared = prepare_retraining(recipe_of(found))
    card = run_retraining(prepared, tmp_path / "out", trial_parameters={"seed": 1})
    assert card == json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["schema"] == CARD_SCHEMA
    architecture = Architecture.load(tmp_path / "out" / "architecture.json")
    assert card["architecture"]["choices"] == CHOICES
    assert (card["architecture"]["target"], card["architecture"]["budget_ms"]) == ("device", 2.0)
    assert card["trial_parameters"] == {"seed": 1}
    network = architecture.build(pretrained=tmp_path / "out" / "weights.pt")
    loader = torch.utils.data.DataLoader(prepared.splits.held_out, batch_size=100)
    (top1,) = accuracies(network, loader)
    assert card["results"]["validation"] == {"top1": pytest.approx(top1)}  # ten classes of about the same size
    assert card["data"]["class_names"] == [str(digit) for digit in range(10)]
    history = read_csv(tmp_path / "out" / "history.csv")
    assert card["results"]["validation"]["top1"] == max(float(row["default"]) for row in history)
    assert card["data"]["validation_images"] == len(prepared.splits.held_out)
    assert card["results"]["test"] is None
    assert any((tmp_path / "out" / "tensorboard").glob("events*"))


def test_inherited_weights_are_where_it_begins(found: Path, tmp_path: Path) -> None:
    network = Architecture.load(found / "architecture.json").build()
    save_weights(network, found / "weights.pt")
    frozen = {"inherit": str(found / "weights.pt"), "learning_rate": 1e-30, "ema_decay": 0.0, "weight_decay": 0.0}
    run_retraining(prepare_retraining(recipe_of(found, **frozen)), tmp_path / "out")
    after = read_weights(tmp_path / "out" / "weights_last.pt")
    parameters = dict(network.named_parameters())
    assert all(torch.allclose(after[name], value) for name, value in parameters.items())
    other = replace(Architecture.load(found / "architecture.json"), choices={**CHOICES, "stage2_layer1": "k5_e1"})
    save_weights(other.build(), found / "weights.pt")
    with pytest.raises(ArchitectureError, match="weights of another architecture"):
        prepare_retraining(recipe_of(found, inherit=str(found / "weights.pt")))


def test_networks_by_name_take_the_spaces_stages(tmp_path: Path) -> None:
    recipe = RetrainRecipe.for_architecture("mobilenet_v2_0.5", {**SETTINGS, "space": "mobilenetv2_digits"}, None)
    prepared = prepare_retraining(recipe)
    assert prepared.architecture.space_name == "mobilenet_v2_0.5"
    assert prepared.architecture.require_spec().classes == 10
    with pytest.raises(DataError, match="batch_size 5000 is larger than the training part"):
        prepare_retraining(recipe.model_copy(update={"batch_size": 5000}))


def test_classes_follow_the_data(found: Path, tiny_spec: SpaceSpec) -> None:
    Architecture.of_space(tiny_spec, CHOICES).save(found / "architecture.json")  # 3 classes
    prepared = prepare_retraining(recipe_of(found))
    assert prepared.architecture.require_spec().classes == 10
    assert prepared.architecture.space_hash == prepared.architecture.require_spec().content_hash


def test_the_moving_average_is_that_of_the_steps(found: Path, tmp_path: Path) -> None:
    """With a decay of 0, the average equals the weights themselves. With another decay, it does not."""
    settings = {"epochs": 2, "warmup_epochs": 1}
    run_retraining(prepare_retraining(recipe_of(found, ema_decay=0.0, **settings)), tmp_path / "plain")
    run_retraining(prepare_retraining(recipe_of(found, ema_decay=0.5, **settings)), tmp_path / "average")
    assert not same(tmp_path / "plain" / "weights_last.pt", tmp_path / "average" / "weights_last.pt")
    recipe = recipe_of(found)
    assert ema_decay(recipe, 2000) == pytest.approx(1 - 1 / 100)
    assert ema_decay(recipe, 10**9) == 0.9999
    assert ema_decay(recipe, 1) == 0.0


def test_mixtures_of_images_have_mixed_labels(found: Path) -> None:
    recipe = recipe_of(found, mixup_alpha=0.5, cutmix_alpha=0.5)
    module = Retraining(recipe, 10, 10)
    assert module._mix is not None
    _images, labels = module._mix(torch.randn(8, 1, 8, 8), torch.arange(8))
    assert labels.shape == (8, 10)
    torch.testing.assert_close(labels.sum(1), torch.ones(8))
    assert Retraining(recipe_of(found), 10, 10)._mix is None


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [warmup_cosine(step, 10, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:] == pytest.approx([(1 + math.cos(math.pi * i / 100)) / 2 for i in range(100)])


def test_top_k_accuracy_by_hand() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, 0, 0]

    logits = torch.tensor([[3.0, 2, 1], [1, 2, 3], [2, 3, 1], [1, 3, 2]])[:, None, None]  # ranks 0 1 2, 2 1 0, ...
    labels = torch.tensor([0, 1, 2, 0])
    assert accuracies(Fixed(), [(logits[:3], labels[:3]), (logits[3:], labels[3:])], (1, 2, 5)) == (0.25, 0.5, 1.0)


def test_a_loss_that_is_not_finite_ends_it(found: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss became nan in epoch 1, step [0-9]+; lower the learning rate"):
        run_retraining(prepare_retraining(recipe_of(found, learning_rate=1e30)), tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"warmup_epochs": 3}, "'warmup_epochs' must be fewer than 'epochs', got 3 of 3"),
        ({"ema_decay": 1.0}, "'ema_decay' must be a number from 0 to below 1"),
        ({"mixup_alpha": -1}, "'mixup_alpha' must be a number of at least 0"),
        ({"held_out_fraction": 0.9}, "must leave images to train on"),
    ],
)
def test_bad_recipes(found: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(found, **settings)


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (2, 1), (3, 2), (4, 3), (200, 3)])
def test_few_epochs_have_a_shorter_warm_up(found: Path, epochs: int, warmup: int) -> None:
    assert RetrainRecipe.for_architecture(str(found), {"epochs": epochs}, None).warmup_epochs == warmup
    tuned = {"epochs": epochs, "fine_tune": True, "inherit": str(found / "weights.pt")}
    assert RetrainRecipe.for_architecture(str(found), tuned, None).warmup_epochs == 0


def test_paths_in_a_written_recipe_are_whole(found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(found.parent)
    written = RetrainRecipe.for_architecture("found", {"inherit": "found/weights.pt"}, None).to_dict(absolute=True)
    assert written["architecture"] == str(found / "architecture.json")
    assert Path(written["inherit"]).is_absolute()
    assert set(written) == set(RetrainRecipe.keys())
