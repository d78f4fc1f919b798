"""Bad input to commands yields a one-line message and exit code 2, and nothing is written."""

from __future__ import annotations

import csv
import itertools
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless import LatencyTable
from nni_proxyless.cli.entry import main
from nni_proxyless.latency import Calibration, this_device
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search import kept_tables, targets
from nni_proxyless.search.targets import Target
from tests.helpers import REPOSITORY, table_of

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
        ("epochs=many", "'epochs' must be a whole number from 1, got 'many' (str)"),
        (
            "target=cpu_tensorflow",
            "unknown target 'cpu_tensorflow'; did you mean 'cpu_torch'? (allowed: cpu_onnxruntime, cpu_torch)",
        ),
        ("space=mobilenetv3", "(allowed: mobilenetv2_cifar, mobilenetv2_digits, mobilenetv2_imagenet)"),
        ("data=mnist", "unknown data set 'mnist' (allowed: arrays, cifar10, cifar100, digits, imagefolder)"),
        ("strategy=darts2", "unknown strategy 'darts2'; did you mean 'darts'? (allowed: darts, enas, gumbel_darts,"),
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


def test_a_table_of_another_device_is_searched_with_but_not_measured(
    recipe_file: Path, tmp_path: Path, capsys: Any
) -> None:
    spec = SpaceSpec.from_yaml(recipe_file.parent / "tiny.yml")
    table_of(spec).save(recipe_file.parent / "phone.yml")
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as exit_:
        main(
            ["search", str(recipe_file), "target=phone", "targets={phone: {table: phone.yml}}"]
            + ["epochs=1", "warmup_epochs=0", "finalists=2", "--output", str(output)]
        )
    assert exit_.value.code == 0
    told = capsys.readouterr()
    found = Architecture.load(output / "architecture.json")
    assert (
        f"phone: accuracy {found.metrics['default']:.4f}, predicted {found.predicted_latency_ms:.4g} ms, not measured\n"
        in told.out
    )
    values = f"{found.predicted_latency_ms:.4g} of {found.budget_ms:.4g} ms"
    assert f"budget kept according to the table: phone {values}\n" in told.out
    assert (told.out + told.err).count(f"accuracy {found.metrics['default']:.4f}, predicted") == 1
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
    assert "port must be a whole number from 1 to 65535, got 99999" in fails(
        ["run", str(QUICKSTART / "config.yml"), "--port", "99999"], capsys
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trialCommand": "python train.py"}, "trialCommand must be 'nni-proxyless trial --recipe FILE'"),
        ({"trialCommand": None}, "'trialCommand' must be a string"),
        ({"searchSpace": [1]}, "'searchSpace' must be a mapping"),
        ({"searchSpace": {"target": ["cpu_torch"]}}, "searchSpace.target must be like"),
        (
            {"searchSpace": {"targt": {"_type": "choice", "_value": ["a"]}}},
            "unknown key 'targt'; did you mean 'target'",
        ),
        ({"searchSpace": {"target": {"_type": "choice", "_value": ["tpu"]}}}, "unknown target 'tpu'"),
        ({"searchSpace": {"epochs": {"_type": "choice", "_value": [20, "x"]}}}, "'epochs' must be a whole number"),
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
    assert len(plan.recipes) == 199
    assert plan.trials == 7
    space["arch_learning_rate"]["_value"][70] = -1.0
    config.write_text(yaml.safe_dump({**content, "searchSpace": space}))
    assert "'arch_learning_rate' must be a number greater than 0, got -1.0" in fails(["run", str(config)], capsys)


def test_latency_measure(tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(tiny_spec.to_dict()))
    words = ["latency", "measure", "--space", str(tmp_path / "tiny.yml"), "--backend"]
    out = tmp_path / "tables" / "t.yml"
    with pytest.raises(SystemExit) as exit_:
        main([*words, "torch", "--threads", "1", "--out", str(out), "--accept"])  # other tests run meanwhile
    assert exit_.value.code == 0
    table = LatencyTable.load(out)
    assert set(table.operators) == set(tiny_spec.distinct_operators())
    assert (table.backend, table.threads, table.batch) == ("torch", 1, 1)
    assert str(out) in capsys.readouterr().out
    bad = tmp_path / "bad.yml"
    assert "unknown latency backend 'tf'" in fails([*words, "tf", "--out", str(bad)], capsys)
    assert "threads must be a whole number from 1" in fails([*words, "torch", "--threads=0", "--out", str(bad)], capsys)
    assert not bad.exists()


def test_a_bad_table_is_not_written_unless_it_is_accepted(tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(tiny_spec.to_dict()))
    out = tmp_path / "phone.yml"
    words = ["latency", "measure", "--space", str(tmp_path / "tiny.yml"), "--backend", "command", "--command"]
    words += ["echo 12.5 # {model}", "--networks", "6", "--out", str(out)]
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "operators take the same time, 12.5 ms" in told
    assert "What to try: check that the command prints the latency of {model}" in told
    assert "give --accept" in told
    assert not out.exists()
    refused = LatencyTable.load(tmp_path / "phone.refused.yml")
    assert refused.quality is not None
    assert refused.quality.verdict == "bad"
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--accept"])
    assert exit_.value.code == 0
    assert "warning: the latency table of not named (command) is bad" in capsys.readouterr().out
    accepted = LatencyTable.load(out)
    assert accepted.quality is not None
    assert accepted.quality.accepted
    assert any("operators take the same time" in text for text in accepted.quality.warnings)


def test_kept_tables_are_listed_and_measured_anew(
    tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNI_PROXYLESS_CACHE", str(tmp_path))

    def listed(*words: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main(["latency", "list", *words])
        assert exit_.value.code == 0
        return str(capsys.readouterr().out)

    assert listed().startswith("no tables in ")
    target = Target("here", backend="torch")
    table = replace(table_of(tiny_spec), calibration=Calibration(1.0, 0.0, 12, 0.08), device=this_device())
    monkeypatch.setattr(targets, "measure_table_isolated", lambda *_, **__: table)
    target.latency_table(tiny_spec)
    (tmp_path / "tables" / "broken.yml").write_text("schema: something else")
    rows = listed().splitlines()
    assert rows[0].split() == ["space", "backend", "format", "threads", "quality", "error", "age", "file"]
    assert rows[2].split()[5:8] == ["doubtful", "8.0", "%"]
    assert " days  " in rows[2]
    assert "cannot be read" in rows[1]
    assert rows[-1].startswith("warning: tiny-")
    monkeypatch.setattr(
        kept_tables,
        "measure_table_isolated",
        lambda spec, backend, **_: replace(
            table, space=f"{spec.name} {backend.name}", calibration=Calibration(1.0, 0.0, 12, 0.01)
        ),
    )
    told = listed("--remeasure")
    assert "broken.yml: not measured, because its file cannot be read" in told
    assert ".yml: measured" in told
    assert any(row.startswith("tiny torch ") and " good " in row for row in told.splitlines())
    worse = replace(table, calibration=Calibration(1.0, 0.0, 12, 0.6))
    monkeypatch.setattr(kept_tables, "measure_table_isolated", lambda *_, **__: worse)
    told = listed("--remeasure")
    assert f"the old table is kept: the latency table of {this_device().name} (torch) is bad: its mean error" in told
    assert any(row.startswith("tiny torch ") and " good " in row for row in told.splitlines())


def test_tables_of_another_machine_or_an_unknown_space_are_not_measured_anew(
    tiny_table: LatencyTable, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNI_PROXYLESS_CACHE", str(tmp_path))
    folder = tmp_path / "tables"
    tiny_table.save(folder / "elsewhere.yml")
    here = replace(tiny_table, device=this_device())
    for name, described in (("old", None), ("empty", "{}"), ("gone", '{"space": {}, "backend": {"name": "tpu"}}')):
        here.save(folder / f"{name}.yml")
        if described is not None:
            (folder / f"{name}.json").write_text(described)
    monkeypatch.setattr(kept_tables, "measure_table_isolated", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SystemExit) as exit_:
        main(["latency", "list", "--remeasure"])
    assert exit_.value.code == 0
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ".yml: " in line)
    assert told["elsewhere.yml"] == "not measured, because it is of another machine"
    assert told["old.yml"] == "not measured, because version 0.1 did not record its space"
    assert "lacks 'space' or 'backend'" in told["empty.yml"]
    assert told["gone.yml"].startswith("the old table is kept: ")


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


def works(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["latency", *arguments])
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def tiny_space(tiny_spec: SpaceSpec, tmp_path: Path) -> str:
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(tiny_spec.to_dict()))
    return str(path)


def test_measure_show_validate_predict(
    tiny_space: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nni_proxyless.latency.validate.PROCESSES", 2)
    table, samples = tmp_path / "t.yml", tmp_path / "raw.csv"
    out = works(
        [
            "measure",
            "--space",
            tiny_space,
            "--backend",
            "torch",
            "--networks",
            "3",
            "--samples",
            str(samples),
            "--accept",
        ]
        + ["--out", str(table)],
        capsys,
    )
    assert "; the table predicts 3 measured networks with a mean error of " in out
    assert samples.read_text().startswith("process,workload,moment_s,value\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.csv", "t.yml", "tiny.yml"]
    out = works(["show", str(table), "--space", tiny_space], capsys)
    assert "most expensive entries" in out
    out = works(["validate", str(table), "--space", tiny_space, "--networks", "4"], capsys)
    assert "rank correlation: Spearman" in out
    folder = tmp_path / "validation_t"
    with (folder / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert all(float(row["predicted_latency_ms"]) > 0 and float(row["measured_latency_ms"]) > 0 for row in rows)
    assert (folder / "validation.png").read_bytes().startswith(b"\x89PNG")
    calibrated = LatencyTable.load(table).calibration.architectures
    assert not {" ".join(list(row.values())[:3]) for row in rows} & set(calibrated)
    predicted = tmp_path / "p.csv"
    rows_file = str(folder / "validation.csv")
    works(["predict", str(table), "--space", tiny_space, "--architectures", rows_file, "--out", str(predicted)], capsys)
    with predicted.open() as file:
        again = list(csv.DictReader(file))
    expected = [pytest.approx(float(row["predicted_latency_ms"])) for row in rows]
    assert [float(row["latency_ms"]) for row in again] == expected


def test_fit_and_suggest(tiny_space: str, tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any) -> None:
    table = table_of(tiny_spec)
    table.save(tmp_path / "basis.yml")
    picks = list(itertools.product(*(layer.names for layer in tiny_spec.layers)))[::6]
    labels = [layer.label for layer in tiny_spec.layers]
    lines = [",".join([*row, str(3 * table.costs(tiny_spec).of(dict(zip(labels, row, strict=True))))]) for row in picks]
    csv_file = tmp_path / "m.csv"
    csv_file.write_text("\n".join([",".join([*labels, "latency_ms"]), *lines]))
    out = works(
        ["fit", "--measurements", str(csv_file), "--basis", str(tmp_path / "basis.yml"), "--space", tiny_space]
        + ["--out", str(tmp_path / "new.yml"), "--suggest", "3"],
        capsys,
    )
    assert "cross-validation over 14 networks: mean error 0.0 %, Spearman 1.000" in out
    assert "mixture: 100 % made up" in out
    assert len((tmp_path / "new.suggestions.csv").read_text().splitlines()) == 4
    fitted = LatencyTable.load(tmp_path / "new.yml").costs(tiny_spec)
    assert fitted.smallest == pytest.approx(3 * table.costs(tiny_spec).smallest)
    out = works(["fit", "--measurements", str(csv_file), "--out", str(tmp_path / "alone.yml")], capsys)
    assert "cross-validation over" in out
    out = works(["compare", str(tmp_path / "new.yml"), str(tmp_path / "alone.yml")], capsys)
    assert "they disagree most" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("measure --space SPACE --backend tpu --out T", "unknown latency backend 'tpu'"),
        ("measure --space nowhere --backend torch --out T", "unknown space 'nowhere'"),
        ("measure --space SPACE --backend torch --dtype int8 --out T", "backend torch: unknown setting 'dtype'"),
        ("measure --space SPACE --backend onnxruntime --dtype int4 --out T", "dtype must be one of float32, int8"),
        ("measure --space SPACE --backend torch --device cuda --out T", "PyTorch sees no CUDA device here"),
        ("measure --space SPACE --backend torch --networks 81 --out T", "calibration networks must be 0 to 80"),
        ("measure --space SPACE --backend command --out T", "needs a command with {model} in it"),
        (
            "measure --space SPACE --backend command --command x{model} --tool trtexek --out T",
            "did you mean 'trtexec'?",
        ),
        ("measure --space SPACE --backend torch --tool trtexec --out T", "backend torch: unknown setting 'tool'"),
        ("validate BASIS --networks 3", "which is not shipped: give --space"),
        ("validate BASIS --space SPACE --networks 1", "networks must be a whole number from 2 to 10000, got 1"),
        ("validate BASIS --space SPACE --networks 99", "99 networks were asked for, but space 'tiny' has 80 in all"),
        ("validate BASIS --space SPACE --threads 2", "--threads needs --backend"),
        ("fit --measurements NONE --out T", "cannot read measurements"),
        ("fit --measurements BASIS --out T", "measurements"),
        ("fit --measurements M --basis BASIS --out T", "give its --space"),
        ("fit --measurements M --suggest -1 --out T", "--suggest must be a whole number from 0 to 1000, got -1"),
        ("predict BASIS --architectures M --out T", "give its --space"),
        ("predict BASIS --space SPACE --architectures M --out T", "lack the layer(s) stage1_layer1"),
        ("import M --format proxylessnas --out T", "published table"),
        ("import BASIS --format nas --out T", "unknown format 'nas' (allowed: once-for-all, proxylessnas)"),
        ("compare BASIS M", "latency table"),
    ],
)
def test_bad_latency_commands(
    arguments: str, message: str, tiny_space: str, tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any
) -> None:
    table_of(tiny_spec).save(tmp_path / "basis.yml")
    (tmp_path / "m.csv").write_text("a,b,latency_ms\n" + "x,y,1\nx,z,2\nw,y,3\nx,y,1\nw,z,4\n")
    names = {"SPACE": tiny_space, "BASIS": "basis.yml", "M": "m.csv", "T": "out.yml", "NONE": "none.csv"}
    words = [names.get(word, word) for word in arguments.split()]
    words = [str(tmp_path / word) if word in names.values() and word != tiny_space else word for word in words]
    before = sorted(path.name for path in tmp_path.iterdir())
    assert message in fails(["latency", *words], capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_command_in_a_table_is_not_run_automatically(
    tiny_space: str, tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any
) -> None:
    mark = tmp_path / "run"
    table = replace(table_of(tiny_spec), backend="command", command=f"touch {mark}; echo {{model}} 3")
    table.save(tmp_path / "t.yml")
    line = fails(["latency", "validate", str(tmp_path / "t.yml"), "--space", tiny_space, "--networks", "3"], capsys)
    assert "which is not run automatically" in line
    assert not mark.exists()


def test_a_failing_command_ends_with_exit_code_1(tiny_space: str, tmp_path: Path, capsys: Any) -> None:
    table = tmp_path / "t.yml"
    line = fails(
        [
            "latency",
            "measure",
            "--space",
            tiny_space,
            "--backend",
            "command",
            "--command",
            "echo broken {model}; exit 4",
        ]
        + ["--retries", "0", "--out", str(table)],
        capsys,
        code=1,
    )
    assert "exit code 4; it said: broken" in line
    assert not table.exists()
