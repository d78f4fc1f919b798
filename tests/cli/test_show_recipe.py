"""`--show-recipe` prints the recipe that would be used, and where each value comes from. It starts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.cli.entry import main
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.files.provenance import Layer, annotated
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--show-recipe"])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    return captured.out


def origins(text: str) -> dict[str, str]:
    """The comment of each key."""
    lines = [line.split("  # ", 1) for line in text.splitlines() if not line.startswith(("#", " "))]
    return {line.partition(":")[0]: comment for line, comment in lines}


def test_a_search(recipe_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    settings = {"epochs": 9, "arch_gradient": "two_path"}
    text = shown(["search", str(recipe_file), *(f"{key}={value}" for key, value in settings.items())], capsys)
    content = yaml.safe_load(text)
    assert content == Recipe.load(recipe_file, settings).to_dict(absolute=True)
    assert Recipe.from_dict(content, Path("/")).to_dict(absolute=True) == content
    found = origins(text)
    assert tuple(found) == Recipe.keys()
    assert found["epochs"] == "command line; recipe file has 6"
    assert found["arch_gradient"] == "command line"
    assert found["batch_size"] == found["targets"] == "recipe file"
    assert found["momentum"] == "default"
    assert found["input_size"] == "default; the space's own: 8"
    assert found["arch_batch_size"] == "default; batch_size: 128"
    assert found["arch_update_every"] == "default; 1, with arch_gradient two_path"
    assert found["objective"] == "default; budget"
    assert found["sharpen_epochs"] == "default; 1.75, with objective budget"  # a quarter of 9 - 2 epochs
    assert f"# results of the search: {tmp_path / 'results' / tmp_path.name / 'device'}" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_retraining_names_the_recipe_of_its_search(recipe_file: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "architecture.json").write_text(json.dumps({"schema": "not read"}))
    text = shown(["retrain", str(tmp_path), "epochs=5"], capsys)
    assert yaml.safe_load(text) == RetrainRecipe.for_architecture(str(tmp_path), {"epochs": 5}, None).to_dict(
        absolute=True
    )
    found = origins(text)
    assert tuple(found) == RetrainRecipe.keys()
    assert found["data"] == "recipe of the search"
    assert found["epochs"] == found["architecture"] == "command line"
    assert found["ema_decay"] == "default; derived from the number of steps"
    other = tmp_path / "other.yml"
    other.write_text("epochs: 7\n")
    text = shown(["retrain", str(tmp_path), "--recipe", str(other)], capsys)
    assert origins(text)["epochs"] == "recipe file"
    assert origins(text)["data"] == "default"


def test_an_experiment_shows_what_varies(capsys: Any) -> None:
    text = shown(["run", "baselines"], capsys)
    found = origins(text)
    assert found["target"] == "searchSpace; choice [cpu_torch, cpu_onnxruntime]"
    assert found["strategy"].startswith("searchSpace; choice [proxyless, random, darts,")
    assert found["epochs"] == "recipe file"
    assert f"# recipe file: {REPOSITORY / 'experiments' / 'baselines' / 'recipe.yml'}" in text
    assert "# trials: 12 at most; tuner: LatencyBudget; trialConcurrency: 2" in text


def test_values_that_are_hard_to_write_are_read_again(tmp_path: Path) -> None:
    name = tmp_path / "a\u2028b # c: 'd'"
    recipe = Recipe.from_dict({"data": "imagefolder", "data_dir": str(name)}, tmp_path)
    text = annotated(recipe, [Layer("recipe file", {"data_dir": str(name)})], {})
    assert yaml.safe_load(text)["data_dir"] == str(name)
