"""`init` looks at images and writes a recipe that loads and runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nni_proxyless import Architecture, LatencyTable
from nni_proxyless.cli.entry import main
from nni_proxyless.data.found_images import FoundImages, look_at
from nni_proxyless.errors import DataError, InputError
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_bridge.plan import check_config
from nni_proxyless.search.first_recipe import batch_size, candidate_spaces, choose_networks
from nni_proxyless.search.recipe import Recipe
from tests.helpers import TINY_SPACE, table_of


def photos(folder: Path, counts: dict[str, int], size: tuple[int, int] = (40, 36)) -> Path:
    generator = np.random.default_rng(0)
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            pixels = generator.normal(60 + 60 * number, 20, (*size, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.png")
    return folder


def run(words: Sequence[object], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    assert ended.value.code == code, captured.err
    return captured.out if code == 0 else captured.err


def test_the_recipe_of_a_folder_of_classes_runs(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"cat": 24, "dog": 12})
    (tmp_path / "own" / "images").mkdir(parents=True)  # by an init that could not make its link
    words = ["init", "--data", "photos", "--budget-ms", "500", "--backend", "torch", "--out", "own/recipe.yml"]
    told = run([*words, "--experiment"], capsys)
    assert "36 training images of 2 classes" in told
    assert "warning: 36 images are few" in told
    assert "warning: class cat has 2.0 times as many images as dog" in told
    assert "warning: the budget of 500 ms has no effect" in told
    assert told.splitlines()[-1] == "next: nni-proxyless run own/config.yml"
    assert (tmp_path / "own" / "images" / "train").resolve() == tmp_path / "photos"
    written = (tmp_path / "own" / "recipe.yml").read_text()
    assert "# 7 images train the architecture" in written
    assert "# 1 batch of the images that train the architecture" in written  # of 4 images each
    recipe = Recipe.load("own/recipe.yml")
    # The shorter side has 36 pixels, so they are searched at 32. 36 images: 22 train the weights, in batches of 4.
    assert (recipe.space, recipe.input_size, recipe.width_mult) == ("mobilenetv2_cifar", 32, 1.0)
    assert (recipe.batch_size, recipe.epochs) == (4, 200)
    assert recipe.targets == {"cpu_torch": {"backend": "torch", "threads": 1}}
    assert check_config(tmp_path / "own" / "config.yml").trials == 1
    for path in ("recipe.yml", "config.yml"):
        assert f"own/{path} exists, and is not overwritten" in run([*words, "--experiment"], capsys, 2)
        (tmp_path / "own" / path).rename(tmp_path / path)
    run(words, capsys)  # the link of an earlier init serves again
    assert yaml.safe_load((tmp_path / "own" / "recipe.yml").read_text()) == yaml.safe_load(written)

    spec = SpaceSpec.from_yaml(recipe.space).with_changes(input_size=32, width_mult=0.1, classes=2)
    table_of(spec).save(tmp_path / "own" / "made_up.yml")
    short = [
        "epochs=1",
        "width_mult=0.1",
        "finalists=1",
        "budget_ms=1e6",
        "batch_size=7",
        "bn_batches=1",
        "targets={cpu_torch: {table: made_up.yml}}",
    ]
    told = run(["search", "own/recipe.yml", *short, "--output", "found"], capsys)
    assert told.startswith(("accuracy ", "warning: "))
    assert Architecture.load("found/architecture.json").spec == spec
    assert LatencyTable.load("found/latency_table.yml") == table_of(spec)


def test_images_that_init_has_not_linked(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"cat": 6, "dog": 6})
    photos(tmp_path / "images", {"a": 6, "b": 6})
    words = ["init", "--budget-ms", "5", "--data"]
    for name in ("photos", "images"):
        told = run([*words, name], capsys, 2)
        assert "images exists, and is not a link to images that init has made" in told
        assert f"into a folder 'train' inside {name}" in told
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own" / "images" / "train").symlink_to(tmp_path / "images")
    told = run([*words, "photos", "--out", "own/recipe.yml"], capsys, 2)
    assert f"own/images/train links to other images, {tmp_path / 'images'}" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 9}, r"has 1 class with images \(cat\), and at least 2 are needed"),
        ({"cat": 9, "dog": 0}, "no images in dog"),
        ({"cat": 9, "dog": 4}, r"at least 5 images, but .* has fewer of dog \(4\)"),
        ({}, "neither a folder of images nor"),
    ],
)
def test_folders_that_are_refused(counts: dict[str, int], message: str, tmp_path: Path) -> None:
    photos(tmp_path / "photos", counts)
    with pytest.raises(DataError, match=message):
        look_at(tmp_path / "photos")


def test_what_is_found(tmp_path: Path) -> None:
    data = tmp_path / "data"
    photos(data / "train", {"a": 6, "b": 12}, (100, 80))
    photos(data / "val", {"a": 2, "b": 3})
    (data / "train" / ".ipynb_checkpoints").mkdir()
    Image.new("L", (7, 9)).save(data / "train" / "b" / "grey.png")
    found = look_at(data)
    assert (dict(found.training), found.test, found.nested, found.channels) == ({"a": 6, "b": 13}, 5, True, 3)
    assert (found.side, found.images, found.imbalance) == (80, 19, 13 / 6)
    (data / "val" / "c").mkdir()
    with pytest.raises(DataError, match="must have the same classes, but differ in c"):
        look_at(data)
    (data / "val" / "c").rmdir()
    (data / "train" / "a" / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"image .*/train/a/0.png cannot be read: .*; remove or replace it"):
        look_at(data)


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    images, labels = np.zeros((20, 16, 16), np.uint8), np.arange(20) % 2
    np.savez(path, images=images, labels=labels)
    found = look_at(path)
    assert (found.kind, dict(found.training), found.channels, found.side) == ("arrays", {"0": 10, "1": 10}, 1, 16)
    spaces = list(candidate_spaces(found))
    assert {(name, spec.input_shape) for name, spec in spaces} == {("mobilenetv2_digits", (1, 16, 16))}
    for shape, name in (
        ((16, 24, 3), "cifar"),
        ((90, 70, 3), "imagenet"),
        ((90, 70), "imagenet"),
        ((9, 8, 4), "cifar"),
    ):
        np.savez(path, images=np.zeros((20, *shape), np.uint8), labels=labels)
        expected = ((*shape[2:], 1)[0], *shape[:2])
        spaces = list(candidate_spaces(look_at(path)))
        assert {(of, spec.input_shape) for of, spec in spaces} == {(f"mobilenetv2_{name}", expected)}


SHORT = ["epochs=1", "space=tiny.yml", "finalists=1", "budget_ms=1e6", "batch_size=7", "bn_batches=1"]


def searched(shape: tuple[int, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Write a recipe for `data` without measuring, run it in a tiny space, and check the shape of its network."""
    monkeypatch.chdir(tmp_path)
    ends = [SimpleNamespace(median=1.0), SimpleNamespace(median=2e3)]
    monkeypatch.setattr("nni_proxyless.search.first_recipe.measure_networks", lambda *_, **__: ends)
    (data,) = tmp_path.glob("data*")
    run(["init", "--data", data, "--budget-ms", "1e3", "--backend", "torch", "--out", "own/recipe.yml"], capsys)
    (tmp_path / "own" / "tiny.yml").write_text(yaml.safe_dump(TINY_SPACE))
    size, width = shape[1:], Recipe.load("own/recipe.yml").width_mult
    spec = SpaceSpec.from_dict(TINY_SPACE).with_changes(
        input_channels=shape[0], input_size=size, width_mult=width, classes=2
    )
    table_of(spec).save(tmp_path / "own" / "made_up.yml")
    run(["search", "own/recipe.yml", *SHORT, "targets={cpu_torch: {table: made_up.yml}}", "--output", "found"], capsys)
    found = Architecture.load("found/architecture.json")
    assert found.spec == spec
    assert found.build()(torch.zeros(1, *shape)).shape == (1, 2)


def test_the_recipe_of_arrays_that_are_not_square_runs(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 12, 20, 3)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 2)
    searched((3, 12, 20), tmp_path, capsys, monkeypatch)
    written = (tmp_path / "own" / "recipe.yml").read_text()
    assert "input_size: [12, 20] " in written
    assert "space: mobilenetv2_cifar " in written


def test_the_recipe_of_a_folder_of_grey_images_runs(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    photos(tmp_path / "data", {"cat": 20, "dog": 20})
    for number, path in enumerate(sorted((tmp_path / "data").rglob("*.png"))):
        grey = Image.open(path).convert("L")
        (Image.fromarray(np.asarray(grey, np.uint16) * 256) if number % 2 else grey).save(path)  # 16 bits or 8
    searched((1, 32, 32), tmp_path, capsys, monkeypatch)
    written = (tmp_path / "own" / "recipe.yml").read_text()
    assert "# the 40 images that were looked at are all grey" in written
    assert "space: mobilenetv2_digits " in written
    (large,) = {spec.input_channels for _, spec in candidate_spaces(found_images(300, channels=1))}
    assert large == 1


def test_unequal_classes_get_a_hint(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ends = [SimpleNamespace(median=1.0), SimpleNamespace(median=2e3)]
    monkeypatch.setattr("nni_proxyless.search.first_recipe.measure_networks", lambda *_, **__: ends)
    for cats, hint in ((15, True), (14, False)):
        data = photos(tmp_path / f"with_{cats}", {"cat": cats, "dog": 10}, (8, 8))
        out = tmp_path / f"{cats}" / "recipe.yml"
        told = run(["init", "--data", data, "--budget-ms", "9", "--backend", "torch", "--out", out], capsys)
        assert ("class cat has 1.5 times as many images as dog" in told) == hint
        assert ("set class_weights: balanced in the recipe if all classes are equally important" in told) == hint
        assert Recipe.load(out, {"class_weights": "balanced"}).class_weights == "balanced"


def found_images(side: int, channels: int = 3) -> FoundImages:
    return FoundImages(Path("x"), "imagefolder", True, {"a": 50, "b": 50}, 0, ((side, side),), channels)


def test_the_largest_space_is_chosen_in_which_the_budget_leaves_a_choice() -> None:
    """With latencies in proportion to multiply-adds, the choice is that of trying all spaces."""

    def measure(networks: Sequence[Architecture]) -> list[float]:
        measured.append(networks[0])
        return [network.multiply_adds / 1e6 for network in networks]

    spaces = [
        (spec.input_size, spec.width_mult, *measure_ends(spec)) for _, spec in candidate_spaces(found_images(300))
    ]
    assert len(spaces) == 20
    for budget in (20.0, 60.0, 150.0, 400.0):
        measured: list[Architecture] = []
        chosen = choose_networks(candidate_spaces(found_images(300)), budget, measure)
        best = next(s for s in spaces if budget >= s[2] + 0.25 * (s[3] - s[2]))
        assert (chosen.spec.input_size, chosen.spec.width_mult) == best[:2]
        assert (chosen.smallest_ms, chosen.largest_ms) == pytest.approx(best[2:])
        assert len(measured) <= 3
    with pytest.raises(InputError, match=r"no network is within 0.01 ms: .* width_mult 0.35 takes"):
        choose_networks(candidate_spaces(found_images(300)), 0.01, measure)


def measure_ends(spec: SpaceSpec) -> tuple[float, float]:
    sizes = [
        [operator.multiply_adds if operator else 0 for operator in layer.candidates.values()] for layer in spec.layers
    ]
    fixed = sum(operator.multiply_adds for operator in (spec.stem, spec.first_block, spec.head, spec.classifier))
    return (fixed + sum(map(min, sizes))) / 1e6, (fixed + sum(map(max, sizes))) / 1e6


@pytest.mark.parametrize(("images", "batch"), [(7, 4), (22, 4), (32, 8), (100, 16), (10_000, 64)])
def test_batches(images: int, batch: int) -> None:
    assert batch_size(images) == batch


def test_written_recipes_are_plain_yaml(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "data" / "train", {"a: b # c": 6, "ä": 6}, (8, 8))
    ends = [SimpleNamespace(median=1.0), SimpleNamespace(median=2e3)]
    monkeypatch.setattr("nni_proxyless.search.first_recipe.measure_networks", lambda *_, **__: ends)
    run(["init", "--data", "data", "--budget-ms", "1e3", "--backend", "torch"], capsys)
    content = yaml.safe_load((tmp_path / "recipe.yml").read_text())
    assert (content["data_dir"], content["budget_ms"], content["input_size"]) == ("data", 1000.0, 32)
    assert Recipe.from_dict(content, tmp_path) == Recipe.load("recipe.yml")
