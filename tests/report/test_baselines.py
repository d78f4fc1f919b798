"""`report --baselines` trains MobileNetV2 and random networks like the networks found, and nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nni_proxyless.cli.entry import main
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import InputError, RecipeError
from nni_proxyless.latency import this_device
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.report import baselines, find_results, make_report, page
from nni_proxyless.report.baselines import plan_baselines, train_baselines, write_networks
from nni_proxyless.report.render import Drawn
from nni_proxyless.report.tables import cross_table, points
from nni_proxyless.report.verdict import verdict
from nni_proxyless.search.targets import Target
from tests.helpers import REPOSITORY, read_csv

RECORDED = REPOSITORY / "tests" / "recorded" / "quickstart"
TARGETS = ["cpu_onnxruntime", "cpu_torch"]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy of the recorded results, whose report is not drawn, and whose retrainings had two epochs."""
    monkeypatch.setattr(page, "draw", lambda _: Drawn([], "", b""))
    folder = Path(shutil.copytree(RECORDED, tmp_path / "quickstart"))
    for target in TARGETS:
        change(folder / target / "retrained" / "recipe.yml", epochs=2, warmup_epochs=0, threads=1)
    return folder


def change(path: Path, **values: Any) -> None:
    load, dump = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    path.write_text(dump({**load(path.read_text()), **values}))


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_the_networks_have_the_size_or_the_latency_of_those_that_were_found(recorded: Path) -> None:
    results = find_results(str(recorded))
    planned = {one.name: one for one in plan_baselines(results, 3)}
    assert len(planned) == 1 + 2 * 3
    assert not any(one.trained for one in planned.values())
    found = {target: Architecture.load(recorded / target / "architecture.json") for target in TARGETS}
    spec = found["cpu_torch"].require_spec()

    def far(width: float) -> int:
        return abs(Architecture.mobilenet_v2(width, like=spec).multiply_adds - found["cpu_torch"].multiply_adds)

    (mobilenet,) = (one for name, one in planned.items() if name.startswith("mobilenet_v2_"))
    assert mobilenet.name == f"mobilenet_v2_{min((step / 20 for step in range(2, 41)), key=far):g}"
    assert set(mobilenet.architecture.choices.values()) == {"k3_e6"}
    assert mobilenet.architecture.require_spec().input_shape == spec.input_shape
    for target in TARGETS:
        table = results.table(target)
        assert table is not None
        costs = table.costs(spec)
        own = costs.of(found[target].choices)
        drawn = [one.architecture for name, one in planned.items() if name.startswith(f"random_{target}_")]
        assert len({str(dict(one.choices)) for one in drawn}) == 3
        for one in drawn:
            assert 0.97 * own <= costs.of(one.choices) <= own
            assert one.predicted_latency_ms == pytest.approx(costs.of(one.choices))
            assert dict(one.choices) != dict(found[target].choices)
    again = plan_baselines(find_results(str(recorded)), 3)
    assert [(one.name, dict(one.architecture.choices)) for one in again] == [
        (one.name, dict(one.architecture.choices)) for one in planned.values()
    ]


def test_the_recipe_is_that_of_the_retraining(recorded: Path) -> None:
    change(recorded / "cpu_torch" / "retrained" / "recipe.yml", epochs=7, inherit="weights.pt")
    planned = plan_baselines(find_results(str(recorded)), 1)
    names = [one.name for one in planned if one.name.startswith("mobilenet")]
    assert names == ["mobilenet_v2_0.4", "mobilenet_v2_0.4_cpu_torch"], "another recipe makes another baseline"
    for one in planned:
        own = RetrainRecipe.load(one.like.folder / "recipe.yml").to_dict(absolute=True)
        differing = {key for key, value in one.recipe.to_dict(absolute=True).items() if value != own[key]}
        assert differing == {"architecture"} | ({"inherit"} if one.like.name.startswith("cpu_torch") else set())
    assert {one.like.name: one.recipe.epochs for one in planned} == {
        "cpu_onnxruntime/retrained": 2,
        "cpu_torch/retrained": 7,
    }


def test_random_networks_keep_the_other_budgets(recorded: Path) -> None:
    network = recorded / "cpu_torch" / "architecture.json"
    change(network, budgets={"parameters": {"limit": 41_500.0, "value": 41_210.0}})
    planned = plan_baselines(find_results(str(recorded)), 4)
    drawn = [one.architecture for one in planned if one.name.startswith("random_cpu_torch_")]
    assert drawn
    assert all(one.parameters <= 41_500 for one in drawn)
    others = [one.architecture for one in planned if one.name.startswith("random_cpu_onnxruntime_")]
    assert any(one.parameters > 41_500 for one in others), "otherwise the budget would forbid nothing"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "package.module:function"}, "takes its data from the function package.module:function"),
        ({"fine_tune": True, "inherit": "x"}, r"retrained adapts inherited weights \(fine_tune\)"),
        ({"devices": 2}, "was trained on 2 devices; train the baselines by hand"),
        ({"data": "imagefolder", "data_dir": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"epochs": "many"}, "'epochs' must be"),
    ],
)
def test_recipes_that_other_networks_cannot_have_are_refused(
    values: dict[str, Any], message: str, recorded: Path
) -> None:
    change(recorded / "cpu_torch" / "retrained" / "recipe.yml", **values)
    with pytest.raises(InputError, match=message):
        plan_baselines(find_results(str(recorded)), 1)
    assert not (recorded / "baselines").exists()


def test_without_a_retraining_the_message_says_how_to_get_one(recorded: Path, capsys: Any) -> None:
    for target in TARGETS:
        shutil.rmtree(recorded / target / "retrained")
    assert run(["report", str(recorded), "--baselines"]) == 2
    assert f"retrain one first: nni-proxyless retrain {recorded / TARGETS[0]}" in capsys.readouterr().err
    assert run(["report", str(recorded), "--random-networks", "2"]) == 2
    assert "--random-networks needs --baselines" in capsys.readouterr().err


def test_a_baseline_of_another_recipe_is_not_replaced(recorded: Path) -> None:
    results = find_results(str(recorded))
    one = plan_baselines(results, 0)[0]
    one.folder.mkdir(parents=True)
    (one.folder / "recipe.yml").write_text(yaml.safe_dump({**one.recipe.to_dict(absolute=True), "epochs": 9}))
    with pytest.raises(InputError, match=r"another recipe \(different: epochs\).*; delete the folder to train"):
        plan_baselines(results, 0)


def test_only_targets_that_are_this_machine_are_measured_and_no_command_is_run(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "measure", lambda *_: 0.125)

    def measured() -> dict[str, float | None]:
        shutil.rmtree(recorded / "baselines", ignore_errors=True)
        results = find_results(str(recorded))
        planned = [one for one in plan_baselines(results, 1) if one.architecture.target]
        write_networks(planned, results)
        return {str(one.architecture.target): Architecture.load(one.file).measured_latency_ms for one in planned}

    assert measured() == {"cpu_onnxruntime": None, "cpu_torch": None}, "the tables are of another processor"
    for target in TARGETS:
        table = recorded / target / "latency_table.yml"
        device = yaml.safe_load(table.read_text())["device"]
        change(table, device={**device, "processor": this_device().processor})
    assert measured() == {"cpu_onnxruntime": 0.125, "cpu_torch": 0.125}
    command = {"backend": "command", "command": "touch started; echo 1 {model}"}
    change(recorded / "cpu_torch" / "recipe.yml", targets={"cpu_torch": command})
    assert measured() == {"cpu_onnxruntime": 0.125, "cpu_torch": None}


def finished(recorded: Path, target: str, name: str, **values: Any) -> None:
    """Put a trained baseline into the results, as `train_baselines` leaves it."""
    results = find_results(str(recorded))
    one = next(one for one in plan_baselines(results, 1) if one.name.startswith(name))
    shutil.copytree(recorded / target / "retrained", one.folder, ignore=shutil.ignore_patterns("exported"))
    one.architecture.save(one.folder / "architecture.json")
    (one.folder / "recipe.yml").write_text(yaml.safe_dump(one.recipe.to_dict(absolute=True)))
    (one.folder / "weights.pt").touch()
    change(one.folder / "architecture.json", **values)


def test_baselines_stand_below_the_networks_that_were_found(recorded: Path) -> None:
    finished(recorded, "cpu_torch", "random_cpu_torch_", measured_latency_ms=0.45)
    finished(recorded, "cpu_torch", "mobilenet_v2_")
    results = find_results(str(recorded))
    assert sum(one.trained for one in plan_baselines(results, 1)) == 2
    lines = [(line.target, line.name, line.kind) for line in verdict(results, {("baselines/x", "cpu_torch"): 1.0})]
    assert lines == [
        ("cpu_onnxruntime", "cpu_onnxruntime", "proxyless"),
        ("cpu_torch", "cpu_torch", "proxyless"),
        ("cpu_onnxruntime", "mobilenet_v2_0.4", "baseline"),
        ("cpu_torch", "mobilenet_v2_0.4", "baseline"),
        ("cpu_torch", "random network", "baseline"),
    ], "a random network is compared on the target that it was drawn for"
    path = make_report(results, measure=False)
    rows = {(row["target"], row["network"]): row for row in read_csv(path.parent / "verdict.csv")}
    drawn = rows["cpu_torch", "random network"]
    assert drawn["measured_latency_ms"] == "0.45"
    assert float(drawn["error"]) == pytest.approx(float(drawn["predicted_latency_ms"]) / 0.45 - 1)
    assert rows["cpu_torch", "mobilenet_v2_0.4"]["measured_latency_ms"] == "", (
        "no table has it, and it was not measured"
    )
    shown = [(p.target, p.kind, p.baseline, p.latency_ms) for p in points(results, {}) if p.baseline]
    assert [point[:3] for point in shown] == [("cpu_torch", "random network", True)]
    names = [row["search"] for row in cross_table(results)]
    assert names[:2] == TARGETS
    assert all(name.startswith("baselines/") for name in names[2:])
    assert len(names) == 4
    assert "next: <code>nni-proxyless report" not in path.read_text(), "the baselines are there"
    name = "baselines/mobilenet_v2_0.4"
    assert f"not drawn: {name} on cpu_onnxruntime, {name} on cpu_torch." in path.read_text()


def test_inherited_weights_make_the_comparison_unequal_and_a_warning_says_so(recorded: Path) -> None:
    finished(recorded, "cpu_torch", "mobilenet_v2_")
    card = recorded / "cpu_torch" / "retrained" / "model_card.json"
    text = "cpu_torch/retrained: it started from inherited weights, and the baselines from random ones"
    assert text not in make_report(find_results(str(recorded)), measure=False).read_text()
    change(card, weights={"inherited_from": "/somewhere/weights.pt"})
    assert text in make_report(find_results(str(recorded)), measure=False).read_text()


def test_an_interrupted_run_goes_on_where_it_was(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def train(prepared: Any, folder: Path) -> None:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(folder.name)
        for name in ("model_card.json", "weights.pt"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        (folder / "recipe.yml").write_text(yaml.safe_dump(prepared.to_dict(absolute=True)))

    monkeypatch.setattr(baselines, "prepare_retraining", lambda recipe: recipe)
    monkeypatch.setattr(baselines, "run_retraining", train)
    results = find_results(str(recorded))
    planned = plan_baselines(results, 1)
    with pytest.raises(KeyboardInterrupt):
        train_baselines(planned)
    first, trained[:] = list(trained), []
    train_baselines(plan_baselines(results, 1))
    assert [*first, *trained] == [one.name for one in planned]


@pytest.mark.slow(seconds=45)
def test_the_command_trains_like_retrain_and_nothing_twice(recorded: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["report", str(recorded), "--baselines", "--random-networks", "1"]
    assert run(words) == 0
    told = capsys.readouterr().out
    names = ["mobilenet_v2_0.4"]
    names += [path.stem for path in sorted((recorded / "baselines").glob("random_*.json"))]
    assert len(names) == 3
    assert all(f"  {name}: " in told for name in names)
    assert told.index("baselines to train:") < told.index("time: ") < told.index("report: ")
    assert "2 epochs with the recipe of cpu_torch/retrained" in told
    name = next(name for name in names if name.startswith("random_cpu_torch_"))
    recipe = recorded / "cpu_torch" / "retrained" / "recipe.yml"
    by_hand = tmp_path / "by_hand"
    network = str(recorded / "baselines" / f"{name}.json")
    content = yaml.safe_load(recipe.read_text())
    del content["architecture"]
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(content))
    assert run(["retrain", network, "--recipe", str(tmp_path / "recipe.yml"), "--output", str(by_hand)]) == 0
    ours, theirs = (
        torch.load(folder / "weights.pt", weights_only=True) for folder in (recorded / "baselines" / name, by_hand)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    before = {path: path.stat().st_mtime_ns for path in (recorded / "baselines").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run(words) == 0
    assert "all 3 baselines are trained" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (recorded / "baselines").rglob("*") if path.is_file()}
    page_text = (recorded / "report" / "report.html").read_text()
    assert page_text.count("random network") >= 2
    assert "Baselines, trained for comparison" in page_text


def test_recipes_of_early_versions_lack_a_file(recorded: Path) -> None:
    (recorded / "cpu_torch" / "retrained" / "recipe.yml").unlink()
    with pytest.raises(RecipeError, match=r"cannot read recipe .*/cpu_torch/retrained/recipe.yml"):
        plan_baselines(find_results(str(recorded)), 1)
