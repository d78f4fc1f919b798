"""Bad input: one line, exit code 2, nothing written."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless import LatencyTable
from nni_proxyless.cli import main
from nni_proxyless.space_spec import SpaceSpec

from .conftest import REPOSITORY, table_of

QUICKSTART = REPOSITORY / "experiments" / "quickstart"


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "experiment"
    shutil.copytree(QUICKSTART, folder)
    return folder / "recipe.yml"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("epochs=many", "'epochs' must be a whole number, got 'many' (str)"),
        (
            "target=cpu_tensorflow",
            "unknown target 'cpu_tensorflow'; did you mean 'cpu_torch'? (allowed: cpu_onnxruntime, cpu_torch)",
        ),
        ("space=mobilenetv3", "(allowed: mobilenetv2_cifar, mobilenetv2_digits, mobilenetv2_imagenet)"),
        ("data=mnist", "unknown data set 'mnist' (allowed: cifar10, cifar100, digits, imagefolder)"),
        ("strategy=darts2", "unknown strategy 'darts2' (allowed: proxyless)"),
        ("targets={cpu_torch: {backend: tensorrt}}", "unknown latency backend 'tensorrt'"),
        ("epochs", "'epochs' is not of the form key=value"),
        ("batch_size=100000", "batch_size 100000 is larger than the weights part of the data (1079 images)"),
    ],
)
def test_bad_settings(setting: str, message: str, recipe: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    line = fails(["search", str(recipe), "target=cpu_torch", setting, "--output", str(output)], capsys)
    assert line.startswith("nni-proxyless search: error: ")
    assert message in line
    assert not output.exists()


@pytest.mark.parametrize("kind", ["lacks", "negative", "zero", "infinite", "schema", "list"])
def test_bad_tables(kind: str, recipe: Path, tmp_path: Path, capsys: Any) -> None:
    spec = SpaceSpec.from_yaml("mobilenetv2_digits")
    content: Any = table_of(spec).to_dict()
    messages = {
        "lacks": "lacks 1 operator(s): mbconv",
        "negative": "latency_ms must be greater than 0, got -1.0",
        "zero": "latency_ms must be greater than 0, got 0.0",
        "infinite": "latency_ms must be a finite number, got inf",
        "schema": "schema must be 'nni-proxyless/latency-table@1', got 'x'",
        "list": "must be a mapping of keys to values, but holds a list",
    }
    if kind == "lacks":
        del content["operators"][10]
    elif kind == "schema":
        content["schema"] = "x"
    elif kind == "list":
        content = [content]
    else:
        content["operators"][4]["latency_ms"] = {"negative": -1.0, "zero": 0.0, "infinite": float("inf")}[kind]
    (tmp_path / "t.yml").write_text(yaml.safe_dump(content))
    targets = f"targets={{phone: {{table: {tmp_path / 't.yml'}}}}}"
    output = tmp_path / "out"
    line = fails(["search", str(recipe), "target=phone", targets, "--output", str(output)], capsys)
    assert messages[kind] in line
    assert not output.exists()


def test_a_table_of_another_device_is_searched_with_but_not_measured(recipe: Path, tmp_path: Path, capsys: Any) -> None:
    spec = SpaceSpec.from_yaml("mobilenetv2_digits")
    table_of(spec).save(recipe.parent / "phone.yml")
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as exit_:
        main(
            ["search", str(recipe), "target=phone", "targets={phone: {table: phone.yml}}"]
            + ["epochs=1", "warmup_epochs=0", "--output", str(output)]
        )
    assert exit_.value.code == 0
    assert "measured on another device" in capsys.readouterr().out
    assert LatencyTable.load(output / "latency_table.yml") == table_of(spec)


@pytest.mark.parametrize(
    ("data_dir", "message"), [("nowhere", "does not exist"), ("empty", "is empty"), ("flat", "no folder 'train'")]
)
def test_bad_data_folders(data_dir: str, message: str, recipe: Path, tmp_path: Path, capsys: Any) -> None:
    (recipe.parent / "empty").mkdir()
    (recipe.parent / "flat" / "cat").mkdir(parents=True)
    settings = ["space=mobilenetv2_cifar", "data=imagefolder", f"data_dir={data_dir}"]
    line = fails(["search", str(recipe), *settings, "--output", str(tmp_path / "out")], capsys)
    assert message in line


@pytest.mark.parametrize("text", ["- 1", "word", "a: [", ""])
def test_recipe_that_is_no_mapping(text: str, recipe: Path, capsys: Any) -> None:
    recipe.write_text(text)
    assert str(recipe) in fails(["search", str(recipe)], capsys)
    assert str(recipe) in fails(["run", str(recipe.parent / "config.yml")], capsys)


def test_files_that_are_missing(tmp_path: Path, capsys: Any) -> None:
    assert "there is no file" in fails(["search", str(tmp_path / "nothing.yml")], capsys)
    line = fails(["run", "quickstar"], capsys)
    assert "unknown experiment 'quickstar'; did you mean 'quickstart'?" in line


def test_busy_port(capsys: Any) -> None:
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        port = busy.getsockname()[1]
        line = fails(["run", str(QUICKSTART / "config.yml"), "--port", str(port)], capsys)
    assert line == (f"nni-proxyless run: error: port {port} is busy; choose another with --port, or stop what uses it")
    assert "port must be from 1 to 65535" in fails(["run", str(QUICKSTART / "config.yml"), "--port", "99999"], capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trialCommand": "python train.py"}, "trialCommand must be 'nni-proxyless trial --recipe FILE'"),
        ({"trialCommand": None}, "'trialCommand' must be a text"),
        ({"searchSpace": [1]}, "'searchSpace' must be a mapping"),
        ({"searchSpace": {"target": ["cpu_torch"]}}, "searchSpace.target must be like"),
        (
            {"searchSpace": {"targt": {"_type": "choice", "_value": ["a"]}}},
            "unknown key 'targt'; did you mean 'target'",
        ),
        ({"searchSpace": {"target": {"_type": "choice", "_value": ["tpu"]}}}, "unknown target 'tpu'"),
        ({"searchSpace": {"epochs": {"_type": "choice", "_value": [1, "x"]}}}, "'epochs' must be a whole number"),
        ({"trainingService": {"platform": "remote"}}, "platform must be 'local', got 'remote'"),
        ({"trialCommand": "nni-proxyless trial --recipe other.yml"}, "other.yml: No such file"),
    ],
)
def test_bad_configs(change: dict[str, Any], message: str, recipe: Path, capsys: Any) -> None:
    config = recipe.parent / "config.yml"
    content = {**yaml.safe_load(config.read_text()), **change}
    config.write_text(yaml.safe_dump(content))
    assert message in fails(["run", str(config)], capsys)


def test_large_search_spaces_are_checked_value_by_value(recipe: Path, capsys: Any) -> None:
    from nni_proxyless.nni_bridge.run import check_config

    config = recipe.parent / "config.yml"
    content = yaml.safe_load(config.read_text())
    rates = [0.001 * n for n in range(1, 101)]
    space: dict[str, Any] = {k: {"_type": "choice", "_value": rates} for k in ("learning_rate", "arch_learning_rate")}
    space["weight_decay"] = {"_type": "uniform", "_value": [0.0, 0.1]}
    config.write_text(yaml.safe_dump({**content, "searchSpace": space, "maxTrialNumber": 7}))
    plan = check_config(config)
    assert len(plan.cells) == 199
    assert plan.trials == 7
    space["arch_learning_rate"]["_value"][70] = -1.0
    config.write_text(yaml.safe_dump({**content, "searchSpace": space}))
    assert "'arch_learning_rate' must be greater than 0, got -1.0" in fails(["run", str(config)], capsys)


def test_latency_measure(tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(tiny_spec.to_dict()))
    words = ["latency", "measure", "--space", str(tmp_path / "tiny.yml"), "--backend"]
    out = tmp_path / "tables" / "t.yml"
    with pytest.raises(SystemExit) as exit_:
        main([*words, "torch", "--threads", "2", "--out", str(out)])
    assert exit_.value.code == 0
    table = LatencyTable.load(out)
    assert set(table.operators) == set(tiny_spec.distinct_operators())
    assert (table.backend, table.threads, table.batch) == ("torch", 2, 1)
    assert str(out) in capsys.readouterr().out
    bad = tmp_path / "bad.yml"
    assert "unknown latency backend 'tf'" in fails([*words, "tf", "--out", str(bad)], capsys)
    assert "threads must be a whole number from 1" in fails([*words, "torch", "--threads=0", "--out", str(bad)], capsys)
    assert not bad.exists()


def test_command_line_mistakes(capsys: Any) -> None:
    assert "invalid choice: 'serach'" in fails(["serach"], capsys)
    assert "required: COMMAND" in fails([], capsys)
    assert "required: --recipe" in fails(["trial"], capsys)
    assert "unrecognized arguments: --colour" in fails(["run", "quickstart", "--colour"], capsys)


def test_trial_by_hand_says_what_to_use_instead(recipe: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNI_TRIAL_JOB_ID", raising=False)
    assert "by hand use: nni-proxyless search" in fails(["trial", "--recipe", str(recipe)], capsys)


def test_debug_shows_the_traceback(recipe: Path) -> None:
    from nni_proxyless.errors import RecipeError

    with pytest.raises(RecipeError):
        main(["search", str(recipe), "epoch=1", "--debug"])


@pytest.mark.parametrize("command", ["run", "trial", "search", "latency measure"])
def test_every_command_has_help_with_an_example(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--help"])
    assert exit_.value.code == 0
    assert "example:" in capsys.readouterr().out
