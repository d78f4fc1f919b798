"""Weights that a retraining begins with, and what it keeps or learns from a larger network."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nni_proxyless import Architecture
from nni_proxyless.data.preprocessing import preprocessing_for
from nni_proxyless.data.preprocessing_file import write_preprocessing
from nni_proxyless.deploy.distillation import distillation_loss, largest_choices, load_teacher
from nni_proxyless.deploy.retrain import Retraining, prepare_retraining, run_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import ArchitectureError, InputError, RecipeError
from nni_proxyless.network.inherited import read_inherited
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import read_weights, save_weights
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.supernet.gated import decoded_state
from nni_proxyless.supernet.space import MobileNetV2Space

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}
SETTINGS: dict[str, Any] = {"epochs": 1, "warmup_epochs": 0, "batch_size": 64, "threads": 1, "data": "digits"}


@pytest.fixture
def spec(tiny_spec: SpaceSpec) -> SpaceSpec:
    return replace(tiny_spec, classes=10)


@pytest.fixture
def found(tmp_path: Path, spec: SpaceSpec) -> Path:
    """Folder with an architecture of ten classes, whose weights are in `weights.pt`."""
    architecture = Architecture.of_space(spec, CHOICES)
    architecture.save(tmp_path / "found" / "architecture.json")
    save_weights(architecture.build(), tmp_path / "found" / "weights.pt")
    return tmp_path / "found"


def recipe_of(found: Path, **settings: Any) -> RetrainRecipe:
    return RetrainRecipe.for_architecture(str(found), {**SETTINGS, **settings}, None)


def inherited(found: Path, file: Path) -> Mapping[str, Tensor]:
    state = prepare_retraining(recipe_of(found, inherit=str(file))).inherited
    assert state is not None
    return state


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def doubled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: 2 * value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: prefixed(state, "module."),
        lambda state: prefixed(state, "model."),
        lambda state: prefixed(state, "module.model._orig_mod."),
        lambda state: {"state_dict": prefixed(state, "model."), "epoch": 3, "args": {"lr": 0.1}},
        lambda state: {"state_dict": {"state_dict": state}, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"model_state_dict": {**prefixed(state, "net."), "criterion.weight": torch.ones(10)}},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        lambda state: {"model": prefixed(state, "module."), "optimizer": {"lr": 0.1}},
        # What a network learnt from, or its moving average, is not the network.
        lambda state: {**prefixed(doubled(state), "ema."), **prefixed(state, "model.")},
        lambda state: {**prefixed(state, "student."), **prefixed(doubled(state), "teacher.model.")},
        lambda state: prefixed(state, "teacher."),
        lambda state: nn.Module.state_dict(nn.ModuleDict()) | state,
    ],
    ids=[
        "plain",
        "module",
        "model",
        "compiled",
        "wrapped",
        "nested",
        "other_keys",
        "old",
        "of_a_key",
        "average",
        "teacher",
        "a_teacher",
        "ordered",
    ],
)
def test_weights_of_other_programs(wrap: Any, found: Path) -> None:
    state = read_weights(found / "weights.pt")
    torch.save(wrap(state), found / "other.pth")
    assert same(inherited(found, found / "other.pth"), state)


def test_one_of_several_networks_is_not_chosen_by_chance(found: Path, tmp_path: Path) -> None:
    state = read_weights(found / "weights.pt")
    torch.save({**prefixed(state, "first."), **prefixed(doubled(state), "second.")}, tmp_path / "two.pt")
    with pytest.raises(
        ArchitectureError, match=r"weights of 2 networks, with the prefixes 'first\.', 'second\.'; save"
    ):
        inherited(found, tmp_path / "two.pt")
    torch.save({**prefixed(state, "first."), **prefixed(state, "second.")}, tmp_path / "same.pt")
    assert same(inherited(found, tmp_path / "same.pt"), state)


def test_a_folder_stands_for_its_weights(found: Path) -> None:
    assert same(inherited(found, found), read_weights(found / "weights.pt"))
    (found / "weights.pt").rename(found / "checkpoint.ckpt")
    assert same(inherited(found, found), read_weights(found / "checkpoint.ckpt"))
    (found / "checkpoint.ckpt").unlink()
    with pytest.raises(ArchitectureError, match=r"has neither weights.pt nor checkpoint.ckpt to inherit from"):
        inherited(found, found)


def test_the_classifier_is_left_out_where_classes_differ(
    found: Path, spec: SpaceSpec, caplog: pytest.LogCaptureFixture
) -> None:
    other = Architecture.of_space(replace(spec, classes=7), CHOICES).build()
    save_weights(other, found / "seven.pt")
    state = inherited(found, found / "seven.pt")
    expected = {key: value for key, value in other.state_dict().items() if not key.startswith("classifier.")}
    assert same(state, expected)
    assert "seven.pt is left out and initialised at random: it has 7 classes, and the data have 10" in caplog.text
    recipe = recipe_of(found, inherit=str(found / "seven.pt"), learning_rate=1e-30, ema_decay=0.0, weight_decay=0.0)
    card = run_retraining(prepare_retraining(recipe), found / "retrained")
    assert any("is left out and initialised at random: it has 7 classes" in text for text in card["warnings"])
    after = read_weights(found / "retrained" / "weights_last.pt")
    assert torch.allclose(after["stem.conv.weight"], expected["stem.conv.weight"])
    assert after["classifier.linear.weight"].shape == (10, 16)


def test_classes_of_other_names_are_other_classes(found: Path, caplog: pytest.LogCaptureFixture) -> None:
    rule = preprocessing_for((1, 8, 8), [0.5], [0.5])
    write_preprocessing(found, rule, [str(number) for number in range(10)])
    assert "classifier.linear.weight" in inherited(found, found)
    write_preprocessing(found, rule, [f"letter {number}" for number in range(10)])
    assert "classifier.linear.weight" not in inherited(found, found)
    assert "its 10 classes have other names than the 10 of the data" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem.conv.weight": torch.zeros(4, 1, 3, 3)}, r"'stem.conv.weight' is \(4, 1, 3, 3\), and this one needs"),
        ({"stem.conv.weight": torch.full((8, 1, 3, 3), math.nan)}, "'stem.conv.weight' must be finite numbers"),
        ({"blocks.9.conv.weight": torch.zeros(1)}, "they also contain 'blocks.9.conv.weight'"),
        ({"classifier.linear.weight": torch.zeros(7, 99)}, r"'classifier.linear.weight' is \(7, 99\)"),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, Tensor], message: str, found: Path) -> None:
    torch.save({**read_weights(found / "weights.pt"), **change}, found / "other.pt")
    with pytest.raises(ArchitectureError, match=message):
        inherited(found, found / "other.pt")


@pytest.mark.parametrize(
    "content", [{"a": 1}, {}, [torch.ones(1)], {"state_dict": {"state_dict": {}}}, {"x": torch.ones(1)}]
)
def test_files_without_weights_of_a_network(content: Any, found: Path) -> None:
    torch.save(content, found / "other.pt")
    with pytest.raises(ArchitectureError, match=r"other.pt (is not a state dict|are weights of another architecture)"):
        inherited(found, found / "other.pt")
    (found / "other.pt").write_bytes(b"nothing")
    with pytest.raises(ArchitectureError, match="holds no weights, or it is truncated or damaged"):
        inherited(found, found / "other.pt")


def test_checkpoints_of_searches_and_retrainings(recipe_file: Path, tmp_path: Path) -> None:
    """One checkpoint of a search has the weights of all its networks. That of a retraining has its moving average."""
    out = tmp_path / "search"
    recipe = Recipe.load(recipe_file, {"epochs": 2, "warmup_epochs": 0, "share_warmup": False})
    prepared = prepare(recipe)
    architecture = run_search(prepared, out)
    raw = torch.load(out / "checkpoint.ckpt", weights_only=True)["state_dict"]
    supernet = MobileNetV2Space(prepared.spec, entangled=False)
    prefix = "training_module._model."
    supernet.load_state_dict({key: raw[prefix + key] for key in supernet.state_dict()})
    for choices in (CHOICES, dict(architecture.choices)):
        network = replace(architecture, choices=choices)
        assert same(read_inherited(out / "checkpoint.ckpt", network).state, decoded_state(supernet, choices))
    # The largest network of the supernet teaches another one.
    largest = largest_choices(prepared.spec, supernet.state_dict())
    assert largest == {"stage1_layer1": "k5_e2", "stage1_layer2": "k5_e2", "stage2_layer1": "k5_e2"}
    left = {key: value for key, value in supernet.state_dict().items() if ".k5_e2." not in key or "blocks.3" in key}
    assert largest_choices(prepared.spec, left) == {**largest, "stage1_layer1": "k3_e2", "stage1_layer2": "k3_e2"}
    images = torch.randn(4, 8, 1, 8, 8)
    batches = [(batch, torch.zeros(8)) for batch in images]
    teacher = load_teacher(out / "checkpoint.ckpt", prepared.spec, batches)
    weights = dict(teacher.named_parameters())
    expected = decoded_state(supernet, largest)
    assert all(torch.equal(weights[key], expected[key]) for key in weights)
    with torch.no_grad():
        found = torch.cat([teacher.stem.conv(batch) for batch in images])  # type: ignore[operator,union-attr]
    torch.testing.assert_close(teacher.stem.bn.running_mean, found.mean((0, 2, 3)))  # type: ignore[union-attr]
    # A retraining inherits from the checkpoint, learns from the largest network, and its checkpoint is inherited again.
    settings = {**SETTINGS, "epochs": 2, "ema_decay": 0.5, "inherit": str(out / "checkpoint.ckpt")}
    again = RetrainRecipe.for_architecture(str(out), {**settings, "teacher": str(out / "checkpoint.ckpt")}, None)
    run_retraining(prepare_retraining(again), tmp_path / "retrained")
    state = read_inherited(tmp_path / "retrained" / "checkpoint.ckpt", architecture).state
    assert same(state, read_weights(tmp_path / "retrained" / "weights_last.pt"))  # the average, not the last step


def test_fine_tuning_has_other_defaults(found: Path) -> None:
    given = {"inherit": str(found), "fine_tune": True}
    recipe = RetrainRecipe.for_architecture(str(found), given, None)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.learning_rate) == (10, 0, 0.005)
    assert RetrainRecipe.for_architecture(str(found), {**given, "epochs": 4}, None).epochs == 4
    assert RetrainRecipe.from_dict(recipe.to_dict()) == recipe
    for key in ("fine_tune", "freeze_batch_norm"):
        with pytest.raises(RecipeError, match=f"'{key}' needs 'inherit', the weights to begin with"):
            recipe_of(found, **{key: True})


def test_frozen_batch_norms_keep_everything(found: Path) -> None:
    before = read_weights(found / "weights.pt")
    recipe = recipe_of(found, inherit=str(found), freeze_batch_norm=True, learning_rate=0.05, ema_decay=0.5)
    run_retraining(prepare_retraining(recipe), found / "retrained")
    after = read_weights(found / "retrained" / "weights_last.pt")
    norms = [key for key in before if ".bn" in key]
    assert len(norms) > 20
    assert all(torch.equal(before[key], after[key]) for key in norms)
    assert not torch.equal(before["stem.conv.weight"], after["stem.conv.weight"])


def test_the_loss_of_distillation_by_hand() -> None:
    """Two classes: softmax of (z, 0) is (σ(z), 1 - σ(z))."""
    for student, teacher, temperature in ((0.0, 2.0, 1.0), (1.0, -3.0, 2.0), (4.0, 4.0, 5.0)):
        p = 1 / (1 + math.exp(-teacher / temperature))
        q = 1 / (1 + math.exp(-student / temperature))
        expected = temperature**2 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
        found = distillation_loss(torch.tensor([[student, 0.0]]), torch.tensor([[teacher, 0.0]]), temperature)
        assert float(found) == pytest.approx(expected, abs=1e-6)
    pair = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [-3.0, 0.0]])
    one_by_one = [distillation_loss(pair[0][i : i + 1], pair[1][i : i + 1], 2.0) for i in range(2)]
    torch.testing.assert_close(distillation_loss(*pair, 2.0), torch.stack(one_by_one).mean())


def test_a_training_step_adds_the_teachers_outputs(found: Path, spec: SpaceSpec, monkeypatch: Any) -> None:
    recipe = recipe_of(found, distillation_weight=0.25, distillation_temperature=2.0, label_smoothing=0.0)
    teacher, student = (Architecture.of_space(spec, CHOICES).build().eval() for _ in range(2))
    module = Retraining(recipe, 1, 10, None, teacher)
    module.set_model(student)
    monkeypatch.setattr(module, "log", lambda *_: None)
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    loss = module.training_step((images, labels), 0)
    student.train()
    z, t = student(images), teacher(images)
    hard = nn.functional.cross_entropy(z, labels)
    q, p = torch.softmax(z / 2, 1), torch.softmax(t / 2, 1)
    soft = 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss, 0.75 * hard + 0.25 * soft)
    loss.backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert student.stem.conv.weight.grad is not None  # type: ignore[union-attr]
    assert not any("teacher" in key for key in module.state_dict())


def test_a_teacher_of_other_classes_is_refused(found: Path, spec: SpaceSpec, tmp_path: Path) -> None:
    other = Architecture.of_space(replace(spec, classes=7), CHOICES)
    other.save(tmp_path / "seven" / "architecture.json")
    save_weights(other.build(), tmp_path / "seven" / "weights.pt")
    with pytest.raises(InputError, match=r"has 7 classes, but the network takes \(1, 8, 8\) and has 10"):
        prepare_retraining(recipe_of(found, teacher=str(tmp_path / "seven")))


def test_a_network_learns_from_a_retrained_one(found: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_retraining(prepare_retraining(recipe_of(found)), found / "teacher")
    recipe = recipe_of(found, teacher=str(found / "teacher"), distillation_weight=1.0)
    prepared = prepare_retraining(recipe)
    assert prepared.teacher is not None
    assert same(prepared.teacher.state_dict(), read_weights(found / "teacher" / "weights.pt"))
    card = run_retraining(prepared, found / "pupil")
    assert card["recipe"]["teacher"] == str(found / "teacher")
    assert "learning from" in caplog.text
