"""From images in memory to a file on a device: grey images that are not square, unequal classes, and recorded steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from nni_proxyless import Architecture
from nni_proxyless.data.preprocessing_file import read_preprocessing
from nni_proxyless.deploy.export import export, load_images
from nni_proxyless.deploy.retrain import data_warnings, load_architecture, prepare_retraining, run_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe, check_names_no_function
from nni_proxyless.errors import DataError, InputError, RecipeError
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.search.shared_weights import decode_finalists
from tests.helpers import read_csv, table_of

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}
COUNTS = (60, 30, 10)
SHAPE = (1, 6, 10)
SETTINGS: dict[str, Any] = {"epochs": 2, "warmup_epochs": 0, "batch_size": 16, "threads": 1, "learning_rate": 0.1}


def pictures(counts: tuple[int, ...] = COUNTS) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of 6 x 10 pixels, whose class is the place of a bright row."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    images = generator.integers(0, 60, (len(labels), 6, 10), dtype=np.uint8)
    images[np.arange(len(labels)), labels] += 150
    return images, labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images, labels = pictures()
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    return tmp_path / "images.npz"


@pytest.fixture
def searched(tmp_path: Path, tiny_spec: SpaceSpec, data: Path) -> Path:
    """Results of a search of two epochs."""
    spec = tiny_spec.with_changes(input_size=SHAPE[1:])
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(tiny_spec.to_dict()))
    table_of(spec).save(tmp_path / "table.yml")
    recipe = Recipe.from_dict(
        {
            "space": "tiny.yml", "input_size": list(SHAPE[1:]), "data": "arrays", "data_dir": str(data), "epochs": 2,
            "batch_size": 16, "budget_fraction": 0.9, "bn_batches": 1, "threads": 1, "finalists": 1,
            "class_weights": "balanced", "target": "device", "targets": {"device": {"table": "table.yml"}},
        },
        tmp_path,
    )  # fmt: skip
    run_search(prepare(recipe), tmp_path / "found")
    return tmp_path / "found"


def test_a_search_a_retraining_and_an_export_agree_on_the_images(
    searched: Path, data: Path, tmp_path: Path, tiny_spec: SpaceSpec
) -> None:
    images, _ = pictures()
    mean, std = images.mean() / 255, (images / 255).std(ddof=1)
    recorded = read_preprocessing(searched)
    assert recorded is not None
    steps, classes = recorded
    assert (steps.input_shape, classes) == (SHAPE, ("0", "1", "2"))
    assert (steps.mean, steps.std) == (pytest.approx([mean]), pytest.approx([std], rel=1e-4))
    architecture = Architecture.load(searched / "architecture.json")
    assert architecture.require_spec().input_shape == SHAPE
    assert any("60 training images make only 6 training steps" in text for text in architecture.warnings)
    assert all(0 <= float(row["balanced_accuracy"]) <= 1 for row in read_csv(searched / "history.csv"))
    assert "60 training images" in read_csv(searched / "history.csv")[0]["warnings"]

    # The data change after the search, but the network still gets images that are prepared as in the search.
    brighter, labels = images + 50, pictures()[1]
    np.savez(data, images=brighter, labels=labels)
    recipe = RetrainRecipe.for_architecture(str(searched), {**SETTINGS, "class_weights": [1, 2, 6]}, None)
    prepared = prepare_retraining(recipe)
    assert prepared.splits.preprocessing == steps
    image, _ = prepared.splits.held_out[0]
    expected = (brighter[prepared.splits.held_out.indices[0]] / 255 - steps.mean[0]) / steps.std[0]
    assert image[0].numpy() == pytest.approx(expected, abs=1e-5)
    card = run_retraining(prepared, tmp_path / "out")
    assert read_preprocessing(tmp_path / "out") == (steps, classes)
    assert card["preprocessing"] == steps.to_dict()
    assert card["data"]["class_names"] == ["0", "1", "2"]
    assert set(card["results"]["validation"]) == {"top1", "balanced"}
    assert "top5" not in read_csv(tmp_path / "out" / "history.csv")[0]
    assert card["warnings"][0].startswith("80 training images make only 10 training steps")

    found = Architecture.load(tmp_path / "out" / "architecture.json")
    checked = load_images(found, tmp_path / "out" / "recipe.yml", 10)
    assert checked.check.shape == (10, *SHAPE)
    export(found, tmp_path / "out" / "weights.pt", tmp_path / "files", ["onnx"], checked, measure=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "files" / "model.onnx"))
    assert session.get_inputs()[0].shape[-3:] == list(SHAPE)
    (logits,) = session.run(None, {session.get_inputs()[0].name: checked.check[:1].numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.from_numpy(logits), found.build(pretrained=tmp_path / "out" / "weights.pt").eval()(checked.check[:1]),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip
    other = RetrainRecipe.for_architecture(str(searched), {**SETTINGS, "data_dir": "other.npz"}, None)
    assert other.mean is None  # other data have a mean of their own

    table = LatencyTable.load(searched / "latency_table.yml")
    budget = table.costs(found.require_spec()).largest
    decoded = decode_finalists(searched, {"device": table}, budget, 2)["device"]
    assert decoded.require_spec() == architecture.require_spec()
    content = yaml.safe_load((searched / "recipe.yml").read_text())
    (searched / "recipe.yml").write_text(yaml.safe_dump({**content, "data": "somebody.elses:function"}))
    with pytest.raises(InputError, match=r"function somebody\.elses:function, which --finalists does not run"):
        decode_finalists(searched, {"device": table}, budget, 2)


def test_the_loss_of_a_retraining_has_the_weights_of_the_recipe(
    tmp_path: Path, data: Path, tiny_spec: SpaceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nni_proxyless.deploy import retrain

    Architecture.of_space(tiny_spec.with_changes(input_size=SHAPE[1:]), CHOICES).save(tmp_path / "architecture.json")
    seen: list[Any] = []

    class Stopped(BaseException):
        pass

    class Seen(retrain.Retraining):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            seen.append(self.criterion.weight)
            raise Stopped

    monkeypatch.setattr(retrain, "Retraining", Seen)
    for weights in ("balanced", {"1": 4.0}, None):
        settings = {**SETTINGS, "data": "arrays", "data_dir": str(data), "class_weights": weights}
        recipe = RetrainRecipe.for_architecture(str(tmp_path / "architecture.json"), settings, None)
        with pytest.raises(Stopped):
            run_retraining(prepare_retraining(recipe), tmp_path / "out")
    # Of the 80 training images, 48, 24 and 8 belong to the classes.
    assert seen[0].tolist() == pytest.approx([80 / (3 * 48), 80 / (3 * 24), 80 / (3 * 8)])
    assert (seen[1].tolist(), seen[2]) == ([1, 4, 1], None)
    bad = {**SETTINGS, "data": "arrays", "data_dir": str(data), "class_weights": [1, 2]}
    with pytest.raises(DataError, match="class_weights must have a number for each of the 3 classes"):
        prepare_retraining(RetrainRecipe.for_architecture(str(tmp_path / "architecture.json"), bad, None))


def test_a_retraining_of_one_class_is_refused(tmp_path: Path, tiny_spec: SpaceSpec) -> None:
    images, labels = pictures((40,))
    np.savez(tmp_path / "one.npz", images=images, labels=labels)
    Architecture.of_space(replace(tiny_spec, input_size=SHAPE[1:]), CHOICES).save(tmp_path / "architecture.json")
    settings = {**SETTINGS, "data": "arrays", "data_dir": str(tmp_path / "one.npz")}
    with pytest.raises(DataError, match="the 40 images have 1 class, and at least 2 are needed"):
        prepare_retraining(RetrainRecipe.for_architecture(str(tmp_path / "architecture.json"), settings, None))


@pytest.mark.parametrize("name", ["mobilenet_v2_0.35", "proxyless_mobile"])
def test_named_networks_take_the_sizes_of_data_and_recipe(name: str, data: Path) -> None:
    def shape(**settings: Any) -> tuple[int, ...]:
        recipe = RetrainRecipe.for_architecture(name, {**SETTINGS, **settings}, None)
        return load_architecture(recipe).require_spec().input_shape

    small = {**SETTINGS, "data": "arrays", "data_dir": str(data)}
    prepared = prepare_retraining(RetrainRecipe.for_architecture(name, small, None))
    assert prepared.architecture.require_spec().input_shape == SHAPE
    assert "reduces images of 6 x 10 pixels to a height or width of 1 before pooling" in data_warnings(prepared)[-1]
    assert shape(data="digits") == (1, 32, 32)
    assert shape(data="cifar10", data_dir=str(data.parent)) == (3, 32, 32)
    assert shape(data="digits", input_size=[96, 160], input_channels=3) == (3, 96, 160)
    assert shape(data="digits", space="mobilenetv2_cifar") == (3, 32, 32)
    assert shape(data="imagefolder", data_dir=str(data.parent)) == (3, 224, 224)
    assert shape(data="imagefolder", data_dir=str(data.parent), input_channels=1) == (1, 224, 224)


def test_recipes_and_cards_of_earlier_versions_are_read(tmp_path: Path, tiny_spec: SpaceSpec) -> None:
    """A search of an earlier version has no record of the preprocessing, and no such keys in its recipe."""
    Architecture.of_space(replace(tiny_spec, classes=10), CHOICES).save(tmp_path / "architecture.json")
    (tmp_path / "recipe.yml").write_text(json.dumps({"data": "digits", "seed": 1}))
    recipe = RetrainRecipe.for_architecture(str(tmp_path), SETTINGS, None)
    assert (recipe.mean, recipe.resize, recipe.split_seed) == (None, None, 1)


def test_a_function_in_foreign_results_is_not_run(tmp_path: Path, tiny_spec: SpaceSpec) -> None:
    Architecture.of_space(tiny_spec, CHOICES).save(tmp_path / "architecture.json")
    (tmp_path / "recipe.yml").write_text("data: somebody.elses:function\n")
    with pytest.raises(RecipeError, match=r"function somebody\.elses:function, which is not run by itself; data=some"):
        RetrainRecipe.for_architecture(str(tmp_path), SETTINGS, None)
    named = {**SETTINGS, "data": "somebody.elses:function"}
    assert RetrainRecipe.for_architecture(str(tmp_path), named, None).data == "somebody.elses:function"
    with pytest.raises(RecipeError, match="--recipe runs it"):
        check_names_no_function(tmp_path / "recipe.yml", "--recipe runs it")
    check_names_no_function(tmp_path / "nowhere.yml", "")
    (tmp_path / "recipe.yml").write_text("data: torchvision:MNIST\n")
    check_names_no_function(tmp_path / "recipe.yml", "")
