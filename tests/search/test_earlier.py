"""Results of another recipe in a folder are kept, and the warnings of a search are where the user looks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from nni_proxyless import Architecture
from nni_proxyless.cli.entry import main
from nni_proxyless.deploy.retrain_epochs import RetrainEpochs
from nni_proxyless.errors import RunError
from nni_proxyless.files.claims import LOCK, Owner
from nni_proxyless.report import find_results, make_report
from nni_proxyless.search.epoch_callback import EpochCallback
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from tests.helpers import largest_file, read_csv


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

    assert run([*other, "--output", str(folder)]) == 2
    assert "different: seed" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert run(words) == 0
    told = capsys.readouterr().err
    assert f"the search in {folder} has already finished; only its last results are made again" in told
    assert "interrupted" not in told

    assert run([*other, "--output", "elsewhere"]) == 0
    assert run([*other, "--overwrite"]) == 0
    assert yaml.safe_load((folder / "recipe.yml").read_text())["seed"] == 5
    assert len(list(folder.glob("tensorboard/events*"))) == 1  # the curves of the first search are gone


def test_a_recipe_that_is_refused_leaves_the_results_as_they_are(recipe_file: Path, capsys: Any) -> None:
    output = recipe_file.parent / "out"
    words = ["search", str(recipe_file), "epochs=1", "warmup_epochs=0", "--output", str(output)]
    assert run(words) == 0
    before = everything(output)
    for bad in (
        ["budget_ms=0.000001", "budget_fraction=null"], ["strategy=nowhere:Nothing"], ["prune_below=0.9"],
        ["threads=1099511627776"], ["strategy=darts", "strategy_args={unknown: 1}"], ["strategy=collections:Counter"],
        ["precision=16-mixed", "accelerator=cpu"], ["target=nowhere"], ["batch_size=100000"], ["data=nothing"],
    ):  # fmt: skip
        assert run([*words, "--overwrite", *bad]) == 2
        assert everything(output) == before
        assert run([*words[:-1], str(recipe_file.parent / "new" / "folder"), *bad]) == 2
        assert not (recipe_file.parent / "new").exists()
    capsys.readouterr()


def test_a_failure_in_the_first_epoch_leaves_the_results_as_they_are(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = recipe_file.parent / "out"
    space = recipe_file.parent / "tiny.yml"
    retrain = ["retrain", "mobilenet_v2_0.5", f"space={space}", "data=digits", "threads=1"]
    for words, callback in ((["search", str(recipe_file)], EpochCallback), (retrain, RetrainEpochs)):
        words = [*words, "epochs=1", "warmup_epochs=0", "--overwrite", "--output", str(output)]
        assert run(words) == 0
        before = everything(output)
        for error in (RunError("the loss is not finite"), MemoryError(), RuntimeError("could not create a primitive")):

            def fail(*_: Any, error: Exception = error) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(callback, "on_train_batch_end", fail)
                capsys.readouterr()
                assert run([*words, "seed=5"]) == 1
                told = capsys.readouterr().err
                assert "Traceback" not in told
                last = told.strip().splitlines()[-1]
                assert "the loss is not finite" in last or "error: out of memory (" in last
            assert everything(output) == before


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(kind: str, recipe_file: Path, capsys: Any) -> None:
    output, space = recipe_file.parent / "out", recipe_file.parent / "tiny.yml"
    words = ["search", str(recipe_file), "share_warmup=false"]
    if kind == "retrain":
        words = ["retrain", "mobilenet_v2_0.5", f"space={space}", "data=digits", "threads=1"]
    words = [*words, "epochs=1", "warmup_epochs=0", "--output", str(output)]
    with largest_file(60_000):
        assert run(words) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.strip().splitlines()[-1] == (
        f"nni-proxyless {kind}: error: cannot write {output / 'checkpoint.ckpt'}: File too large"
    )
    assert not [path for path in output.rglob(".*") if path.is_file()]
    assert run(words) == 0
    # Results of another recipe are replaced only if there is room for the new ones.
    before = everything(output)
    with largest_file(60_000):
        assert run([*words, "seed=5", "--overwrite"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        f"nni-proxyless {kind}: error: cannot write {output}: File too large"
    )
    assert everything(output) == before


def test_a_folder_in_use_is_refused_before_anything_slow(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def slow(*_: Any, **__: Any) -> None:
        raise AssertionError("the search was prepared")

    monkeypatch.setattr("nni_proxyless.search.prepared.prepare", slow)
    monkeypatch.setattr("nni_proxyless.deploy.retrain.prepare_retraining", slow)
    output = recipe_file.parent / "out"
    output.mkdir()
    started = psutil.Process(os.getppid()).create_time()
    (output / LOCK).write_text(
        json.dumps({"host": Owner.this().host, "boot": Owner.this().boot, "process": os.getppid(), "started": started})
    )
    before = everything(output)
    for words in (["search", str(recipe_file)], ["retrain", "mobilenet_v2_0.5"]):
        assert run([*words, "--output", str(output)]) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert told == [
            f"nni-proxyless {words[0]}: error: the folder {output} is in use by process {os.getppid()} on this machine "
            f"({Owner.this().host}); wait until it has ended, or choose another folder with --output"
        ]
        assert everything(output) == before


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
