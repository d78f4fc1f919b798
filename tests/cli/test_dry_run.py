"""A dry run times real steps, says what would happen, and writes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.cli.entry import main
from nni_proxyless.cli.forecast_time import Load, LoadWatch, ends, time_lines
from nni_proxyless.files.writing import write_json
from nni_proxyless.latency import LatencyTable
from nni_proxyless.search import forecast
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.table_plan import plan_table
from nni_proxyless.search.targets import Target, described_by
from nni_proxyless.training import step_probe
from nni_proxyless.training.step_probe import EnoughStepsError, StepProbe, Timing


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The lines of a dry run by their first word; lines that go on belong to the word before."""
    with pytest.raises(SystemExit) as ended:
        main([*words, "--dry-run"])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    first, *lines = captured.out.splitlines()
    assert first == "dry run: nothing is started, and nothing is written"
    found: dict[str, str] = {}
    word = ""
    for line in lines:
        word = line[:12].strip() or word
        found[word] = f"{found.get(word, '')} {line[12:]}".strip()
    return found


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_search(recipe_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(step_probe, "MOST_S", 0.2)
    cache = Path(os.environ["NNI_PROXYLESS_CACHE"])
    before = snapshot(tmp_path), snapshot(cache)
    found = told(["search", str(recipe_file)], capsys)
    assert (snapshot(tmp_path), snapshot(cache)) == before
    # 1797 images: a fifth is held out, a fifth trains the architecture; 1079 // 128 steps
    assert "1079 images train the weights, 359 the architecture, 359 are held out; 10 classes" in found["data"]
    assert f"device: table {tmp_path / 'table.yml'}, " in found["target"]
    assert f"{tmp_path / 'results' / tmp_path.name / 'device'} (new folder): " in found["writes"]
    assert found["epochs"] == "6 of 8 steps"
    assert re.match(r"(about )?(\d+ s|\d+ min|less than 1 s)", found["time"])
    assert re.search(
        r"steps that were just run here.* a step of the weights [\d.]+ s, a step of the search [\d.]+ s", found["time"]
    )
    assert "not included: the start, the latency table" in found["time"]


def test_an_experiment_names_the_budgets_of_its_trials(
    recipe_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(step_probe, "MOST_S", 0.2)
    config = {
        "searchSpace": {
            "target": {"_type": "choice", "_value": ["device"]},
            "budget_fraction": {"_type": "choice", "_value": [0.9, 0.8]},
            "seed": {"_type": "choice", "_value": [0, 1]},
        },
        "trialCommand": f"nni-proxyless trial --recipe {recipe_file.name}",
        "tuner": {"name": "GridSearch"},
        "trialConcurrency": 1,
        "trainingService": {"platform": "local"},
    }
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    found = told(["run", str(tmp_path / "config.yml"), "--results", str(tmp_path / "results")], capsys)
    assert found["trials"].startswith("4, which differ in budget_fraction, seed")
    largest = "of the largest network's latency"
    assert found["budget"] == f"device: 0.9 {largest}; 0.8 {largest}"


def test_an_interrupted_search_goes_on(recipe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    recipe = Recipe.load(recipe_file)
    (output / "recipe.yml").write_text(
        recipe_file.read_text()
        .replace("tiny.yml", str(tmp_path / "tiny.yml"))
        .replace("table.yml", str(tmp_path / "table.yml"))
    )
    assert Recipe.load(output / "recipe.yml").to_dict(absolute=True) == recipe.to_dict(absolute=True)
    for name in ("checkpoint.ckpt", "latency_table.yml"):
        (output / name).write_text("")
    (output / "history.csv").write_text("epoch\n1\n2\n3\n")
    from nni_proxyless.cli.dry_run import _Report, _writes

    report = _Report()

    assert _writes(recipe, report, output, ["a"], ("checkpoint.ckpt", "latency_table.yml")) == 3
    assert "(continues after epoch 3)" in report._rows[0][1]
    assert _writes(Recipe.load(recipe_file, {"seed": 1}), report, output, ["a"], ("checkpoint.ckpt",)) == 0
    assert "(replaces the results there)" in report._rows[1][1]


def test_a_retraining_and_an_export(
    recipe_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nni_proxyless.network.architecture import Architecture
    from nni_proxyless.network.weights import save_weights

    monkeypatch.setattr(step_probe, "MOST_S", 0.1)
    prepared = prepare(Recipe.load(recipe_file))
    choices = {layer.label: layer.names[0] for layer in prepared.spec.layers}
    Architecture.of_space(prepared.spec, choices).save(tmp_path / "architecture.json")
    before = snapshot(tmp_path)
    found = told(["retrain", str(tmp_path), "epochs=50"], capsys)
    # 1438 images train: 22 steps of 64, and the last, incomplete batch is left out
    assert found["epochs"] == "50 of 22 steps"
    assert "1438 images train, 359 are held out, no test images; 10 classes" in found["data"]
    assert f"{tmp_path / 'retrained'} (new folder)" in found["writes"]
    save_weights(Architecture.load(tmp_path / "architecture.json").build(), tmp_path / "weights.pt")
    before = snapshot(tmp_path)
    found = told(["export", str(tmp_path), "--format", "onnx", "state_dict", "--no-measure"], capsys)
    described = "architecture.json, model_card.json, README.md, export.json"
    assert found["writes"] == f"{tmp_path / 'exported'}: model.onnx, weights.pt, {described}"
    assert snapshot(tmp_path) == before


def test_the_forecast_is_the_sum_of_its_parts(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(Recipe.load(recipe_file, {"finalists": 8, "finalist_epochs": 1}))
    weights, search = Timing(1.0, 0.5, 2.0, 5), Timing(3.0, 2.0, 5.0, 7)
    evaluation, finalist = Timing(10.0, 10.0, 10.0, 0), Timing(4.0, 4.0, 4.0, 0)
    monkeypatch.setattr(
        forecast, "_timed", lambda _, *, warmup, cycle=1: (weights if warmup else search, evaluation, finalist)
    )
    found = forecast.forecast_search(prepared)
    assert found is not None
    # 8 steps in each of 6 epochs: 2 of warm-up, 3 of search, 1 of finalists; 6 evaluations and 8 finalists
    assert found.total.mean == pytest.approx(8 * (3 * 1.0 + 3 * 3.0) + 6 * 10 + 8 * 4)
    assert found.total.low == pytest.approx(8 * (3 * 0.5 + 3 * 2.0) + 6 * 10 + 8 * 4)
    assert found.total.high == pytest.approx(8 * (3 * 2.0 + 3 * 5.0) + 6 * 10 + 8 * 4)
    assert found.total.count == 12
    rest = forecast.forecast_search(prepared, done=4)  # one epoch of search and one of finalists are left
    assert rest is not None
    assert rest.total.mean == pytest.approx(8 * (1.0 + 3.0) + 2 * 10 + 8 * 4)
    changes = {"finalists": 8, "finalist_epochs": 1, "finalist_steps": 5}
    trained = forecast.forecast_search(prepare(Recipe.load(recipe_file, changes)))
    assert trained is not None  # 8, 4 and 2 finalists are trained for 5 steps each, and compared again
    assert trained.total.mean == pytest.approx(found.total.mean + (8 + 4 + 2) * (5 * 1.0 + 4.0))


def test_steps_of_two_kinds_are_timed_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps end at 0, 1, 4, 5, 8, 9, 12 s: 1 s without and 3 s with an architecture step, so 2 s on average."""
    ends = iter([0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ends))
    monkeypatch.setattr(step_probe, "MOST_S", 11.0)
    called: list[str] = []
    probe = StepProbe(2, lambda: called.append("end"), lambda: called.append("step"))
    for index in range(6):
        probe.on_train_batch_end(None, None, None, None, index)
    with pytest.raises(EnoughStepsError):
        probe.on_train_batch_end(None, None, None, None, 6)
    assert called == ["step"] * 7 + ["end"]
    assert probe.timing == Timing(2.0, 2.0, 2.0, 6)
    many = Timing.of([float(n) for n in range(1, 101)])
    assert (many.mean, many.low, many.high) == pytest.approx((50.5, 10.1, 90.9))


@pytest.mark.parametrize(
    ("threads", "other_cores", "cores", "idle", "crowded"),
    [
        (2, 0.0, 2, 1.0, 2.0),  # two programs with two threads each on two cores
        (2, 1.0, 2, 0.5, 2.0),  # half of the cores are left now
        (1, 1.0, 2, 1.0, 1.5),  # a core is left; three threads on two cores
        (4, 4.0, 8, 1.0, 1.5),  # four cores are left; twelve threads on eight cores
        (8, 7.9, 8, 0.1, 2.0),
        (4, 0.0, 2, 1.0, 1.5),  # more threads than cores: the training gets two thirds of the time
        (0, 7.0, 8, 1.0, 1.0),  # a GPU trains
    ],
)
def test_the_range_of_a_forecast(threads: int, other_cores: float, cores: int, idle: float, crowded: float) -> None:
    load = Load(threads, other_cores, cores)
    assert (load.when_idle, load.when_crowded) == pytest.approx((idle, crowded))
    low, high = ends(Timing(100.0, 90.0, 110.0, 5), load)
    assert low == pytest.approx(min(90.0, 100 * idle))
    assert high == pytest.approx(max(110.0, 100 * idle * crowded))
    told = time_lines(Timing(100.0, 90.0, 110.0, 5), load, 5)
    assert told[1].startswith("about 1 min 40 s if the machine stays as busy as it was: ")
    assert ("no other program" in told[1]) == (other_cores == 0)
    assert len(told) == (3 if threads else 2)
    if threads:
        assert told[2].endswith("another program uses all cores" if idle * crowded > 1.1 else "as busy as it was")
    assert time_lines(Timing(100.0, 100.0, 100.0, 5), Load(0, 1.0, 8), 5, " in all") == [
        "about 1 min 40 s in all, from 5 steps that were just run here"
    ]


def test_processes_that_load_data_are_not_other_programs() -> None:
    watch = LoadWatch()
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    assert watch.read().other_cores < watch._meter.read().other_cores


def test_the_duration_of_a_measurement_comes_from_a_recorded_one(tiny_table: LatencyTable, tiny_spec: Any) -> None:
    target = Target("here", backend="torch", settings={"threads": 1})
    plan = plan_table(target, tiny_spec)
    operators = len(tiny_spec.distinct_operators())
    assert plan.table is None
    assert "to be measured with torch" in plan.text
    assert f"{operators} operators and 12 networks in 2 to 6 processes" in plan.text
    assert plan.measurement.startswith("not known: ")
    backend = target.make_backend()
    assert backend is not None
    path = target.kept_table(tiny_spec, backend)
    tiny_table.save(path)
    larger = tiny_spec.with_changes(width_mult=2.0)
    write_json(described_by(path), {"space": tiny_spec.to_dict(), "backend": backend.settings, "seconds": 30.0})
    expected = 30 * len(larger.distinct_operators()) / operators
    assert plan_table(target, larger).measurement.startswith(f"about {expected:.0f} s, since {path.name} with")
    kept = plan_table(target, tiny_spec, accept=True)
    assert kept.table == tiny_table
    assert "from the cache" in kept.text
    assert plan_table(target, tiny_spec, accept=True, remeasure=True).table is None
