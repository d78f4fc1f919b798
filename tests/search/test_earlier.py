"""Results of another recipe in a folder are kept, and the warnings of a search are where the user looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless import Architecture
from nni_proxyless.cli.entry import main
from nni_proxyless.report import find_results, make_report
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from tests.helpers import read_csv


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    return int(exit_.value.code or 0)


def test_a_search_keeps_the_results_of_another_recipe(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    words = ["search", str(recipe_file), "epochs=1", "warmup_epochs=0"]
    folder = Path("results") / recipe_file.parent.name / "device"
    assert run(words) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    events = list(folder.glob("tensorboard/events*"))
    assert len(events) == 1
    capsys.readouterr()

    other = [*words, "seed=5"]
    assert run(other) == 2
    told = capsys.readouterr().err
    assert f"{folder} holds the results of another recipe (different: seed), which would be replaced" in told
    assert "choose another folder with --output, or replace them with --overwrite" in told
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before

    assert run([*other, "--output", "elsewhere"]) == 0
    assert run([*other, "--overwrite"]) == 0
    assert yaml.safe_load((folder / "recipe.yml").read_text())["seed"] == 5
    assert len(list(folder.glob("tensorboard/events*"))) == 1  # the curves of the first search are gone


def test_a_recipe_that_is_refused_leaves_the_results_as_they_are(recipe_file: Path, capsys: Any) -> None:
    output = recipe_file.parent / "out"
    words = ["search", str(recipe_file), "epochs=1", "warmup_epochs=0", "--output", str(output)]
    assert run(words) == 0
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    for bad in (["budget_ms=0.000001", "budget_fraction=null"], ["strategy=nowhere:Nothing"], ["prune_below=0.9"]):
        assert run([*words, *bad]) == 2
        assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before
    capsys.readouterr()


def test_a_retraining_keeps_the_results_of_another_recipe(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    space = recipe_file.parent / "tiny.yml"
    words = ["retrain", "mobilenet_v2_0.5", f"space={space}", "data=digits", "epochs=1", "warmup_epochs=0", "threads=1"]
    assert run(words) == 0
    assert run([*words, "seed=4"]) == 2
    assert "holds the results of another recipe (different: seed)" in capsys.readouterr().err
    assert run([*words, "seed=4", "--overwrite"]) == 0


def test_warnings_are_in_the_history_the_architecture_the_output_and_the_report(
    recipe_file: Path, tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "results" / "device"
    settings = {"budget_fraction": None, "budget_ms": 1000.0, "epochs": 2, "warmup_epochs": 0}
    found = run_search(prepare(Recipe.load(recipe_file, settings)), output)
    (warning,) = found.warnings
    assert warning.startswith("the budget of 1000 ms has no effect: the slowest network of the space takes ")
    rows = read_csv(output / "history.csv")
    assert [row["warnings"] for row in rows] == [warning, ""]
    assert Architecture.load(output / "architecture.json").warnings == (warning,)
    page = make_report(find_results(str(tmp_path / "results")), measure=False).read_text()
    assert "the budget of 1000 ms has no effect" in page
    words = ["search", str(recipe_file), "budget_fraction=null", "budget_ms=1000", "epochs=1", "warmup_epochs=0"]
    assert run([*words, "--output", str(tmp_path / "again")]) == 0
    assert f"warning: {warning}" in capsys.readouterr().out


def test_a_shared_warm_up_brings_no_warnings_of_another_search(recipe_file: Path, tmp_path: Path) -> None:
    high = {"budget_fraction": None, "budget_ms": 1000.0, "epochs": 3, "warmup_epochs": 1}
    first = run_search(prepare(Recipe.load(recipe_file, high)), tmp_path / "first")
    assert first.warnings
    second = run_search(prepare(Recipe.load(recipe_file, {"epochs": 3, "warmup_epochs": 1})), tmp_path / "second")
    assert [row["epoch"] for row in read_csv(tmp_path / "second" / "history.csv")] == ["2", "3"]
    assert not second.warnings
