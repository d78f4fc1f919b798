"""Configs of `run` that NNI would accept and then hang or fail with: search spaces, tuners, numbers and folders."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.errors import InputError
from nni_proxyless.nni_bridge import algorithm_check, algorithms, plan
from nni_proxyless.nni_bridge.algorithm_check import find_fault
from nni_proxyless.nni_bridge.plan import check_config, check_tuner
from nni_proxyless.nni_bridge.search_space import parse_dimensions
from tests.helpers import REPOSITORY

QUICKSTART = REPOSITORY / "experiments" / "quickstart"


def dimension(kind: Any, value: Any) -> Any:
    return parse_dimensions({"key": {"_type": kind, "_value": value}}, "config c.yml")["key"]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("choise", [1], "unknown _type 'choise'; did you mean 'choice'"),
        (["choice"], [1], "unknown _type"),
        ("choice", [], "the _value of a choice must be [value, …], got []"),
        ("choice", "ab", "got 'ab'"),
        ("choice", {"a": 1}, "got {'a': 1}"),
        ("choice", [1, 2, 1], "has the value 1 twice"),
        ("choice", [{"_name": "a", "epochs": {"_type": "choice", "_value": [1]}}], "nested choices"),
        ("choice", [float("nan")], "NNI sends values as JSON"),
        ("choice", [{1, 2}], "NNI sends values as JSON"),
        ("uniform", [1], "must be [low, high] in numbers, got [1]"),
        ("uniform", [1, 2, 3], "must be [low, high] in numbers"),
        ("uniform", ["1", "2"], "must be [low, high] in numbers"),
        ("uniform", [False, True], "must be [low, high] in numbers"),
        ("uniform", [0, float("inf")], "must be [low, high] in numbers"),
        ("uniform", [2, 1], "the low end of a uniform must be below its high end"),
        ("uniform", [1, 1], "the low end of a uniform must be below its high end"),
        ("loguniform", [0, 1], "the low end of a loguniform must be above 0, got 0"),
        ("qloguniform", [-1, 1, 1], "the low end of a qloguniform must be above 0"),
        ("quniform", [0, 1], "must be [low, high, step] in numbers"),
        ("loguniform", ["1e-4", 1], "YAML reads 1e-4 as a string, so write 1.0e-4"),
        ("uniform", [0, "2.5e3"], "YAML reads 2.5e3 as a string, so write 2.5e+3"),
        ("quniform", [0, 1, 0], "the step of a quniform must be above 0, got 0"),
        ("quniform", [0, 1, -1], "the step of a quniform must be above 0, got -1"),
        ("randint", [0.5, 3], "must be [low, high] in whole numbers"),
        ("randint", [3, 3], "the low end of a randint must be below its high end"),
        ("normal", [0, 0], "the spread of a normal must be above 0, got 0"),
        ("qnormal", [0, 1], "must be [mean, spread, step] in numbers"),
        ("lognormal", [0, -1], "the spread of a lognormal must be above 0"),
        ("lognormal", [700, 10], "has infinite values"),
    ],
)
def test_search_spaces_that_are_refused(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        dimension(kind, value)
    assert str(raised.value).startswith("config c.yml: searchSpace.key")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (None, "'searchSpace' must be a mapping, got None"),
        ({"a": None}, "searchSpace.a must be like"),
        ({"a": {"_type": "choice"}}, "searchSpace.a must be like"),
        ({"a": {"_type": "choice", "_value": [1], "_vale": 2}}, "searchSpace.a must be like"),
        ({1: {"_type": "choice", "_value": [1]}}, "the keys of a search space must be strings, got 1"),
        ({"a": "x" * 100_000}, "searchSpace.a must be like"),
        ({"a" * 100_000: 1}, "must be like"),
    ],
)
def test_search_spaces_of_another_form_are_refused(space: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_dimensions(space, "config c.yml")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 600


def test_the_ends_of_ranges_are_tried() -> None:
    """Values by the definitions of NNI's documentation, for instance quniform = clip(round(x / q) * q, low, high)."""
    assert dimension("choice", [3, "a"]).values == [3, "a"]
    assert dimension("randint", [2, 9]).values + dimension("randint", [2, 9]).probes == [2, 8]
    found = dimension("uniform", [0.0, 1.0])
    assert found.values == [0.0]
    assert found.probes[0] == 1.0
    assert 0 < found.probes[1] < 1
    assert dimension("quniform", [1, 10, 4]).values == [1]  # round(1 / 4) * 4 is 0, below the low end
    assert dimension("quniform", [1, 10, 4]).probes == [8, 4]
    assert dimension("normal", [5, 1]).probes == [2, 8]
    assert dimension("qnormal", [5, 1, 2]).values == [4]  # Python and NNI round 2.5 to 2
    assert dimension("lognormal", [0, 1]).values == [1.0]
    assert not dimension("uniform", [0, 1]).finite


def changed(folder: Path, **changes: Any) -> Path:
    (folder / "recipe.yml").write_text((QUICKSTART / "recipe.yml").read_text())
    content = {**yaml.safe_load((QUICKSTART / "config.yml").read_text()), **changes}
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value != "left out"}))
    return path


def choices(**values: list[Any]) -> dict[str, Any]:
    return {key: {"_type": "choice", "_value": listed} for key, listed in values.items()}


TARGET = choices(target=["cpu_torch"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trialConcurrency": "left out"}, "'trialConcurrency' is missing"),
        ({"trialConcurrency": 0}, "'trialConcurrency' must be a whole number from 1, got 0"),
        ({"trialConcurrency": True}, "'trialConcurrency' must be a whole number from 1, got True"),
        ({"trialConcurrency": "2"}, "'trialConcurrency' must be a whole number from 1, got '2'"),
        ({"maxTrialNumber": 0}, "'maxTrialNumber' must be a whole number from 1, got 0"),
        ({"maxTrialNumber": 1.5}, "'maxTrialNumber' must be a whole number from 1, got 1.5"),
        ({"maxTrialNumber": -3}, "'maxTrialNumber' must be a whole number from 1, got -3"),
        ({"trialGpuNumber": -1}, "'trialGpuNumber' must be a whole number from 0, got -1"),
        ({"maxExperimentDuration": "1 week"}, "'maxExperimentDuration' must be a number of seconds above 0"),
        ({"maxExperimentDuration": 0}, "'maxExperimentDuration' must be a number of seconds above 0"),
        ({"maxTrialDuration": "h"}, "'maxTrialDuration' must be a number of seconds above 0"),
        ({"maxTrialDuration": "-5m"}, "'maxTrialDuration' must be a number of seconds above 0"),
        ({"maxTrialDuration": "nanh"}, "'maxTrialDuration' must be a number of seconds above 0"),
        ({"useAnnotation": True}, "'useAnnotation' is not supported"),
        ({"experimentType": "nas"}, "'experimentType' is not supported"),
        ({"trainingService": {"platform": "local", "reuseMode": True}}, "reuseMode is not supported by 'run'"),
        ({"trainingService": [{"platform": "local"}]}, "platform must be 'local', got None"),
        ({"trainingService": "left out"}, "platform must be 'local', got None"),
        ({"experimentWorkingDirectory": 7}, "'experimentWorkingDirectory' must be the path of a folder, got 7"),
        ({"experimentWorkingDirectory": "recipe.yml"}, "is not a folder"),
        ({"experimentWorkingDirectory": "recipe.yml/x"}, "is not a folder"),
        ({"experimentWorkingDirectory": "a\0b"}, "experimentWorkingDirectory has a character NUL"),
        ({"trialCodeDirectory": "missing"}, "is not a folder"),
        ({"trialCodeDirectory": 3}, "'trialCodeDirectory' must be the path of a folder, got 3"),
        ({"trialCommand": "nni-proxyless trial --recipe 'recipe.yml"}, "trialCommand must be 'nni-proxyless trial"),
        ({"trialCommand": "nni-proxyless search --recipe recipe.yml"}, "trialCommand must be 'nni-proxyless trial"),
        ({"trialCommand": "nni-proxyless trial --recipe"}, "trialCommand must be 'nni-proxyless trial"),
        ({"trialCommand": "nni-proxyless trail --recipe recipe.yml"}, "trialCommand must be 'nni-proxyless trial"),
        ({"trialCommand": "nni-proxyles trial --recipe recipe.yml"}, "trialCommand must be 'nni-proxyless trial"),
        ({"trialCommand": "nni-proxyless --recipe recipe.yml"}, "trialCommand must be 'nni-proxyless trial"),
        ({"trialCommand": "cd x; .venv/bin/nni-proxyless search --recipe r.yml"}, "trialCommand must be 'nni-proxyl"),
        ({"trialCommand": "python -m nni_proxyless search --recipe r.yml"}, "trialCommand must be 'nni-proxyless t"),
        ({"trialCommand": "nni-proxyless trial --recipe recipe.yml --epochs 3"}, "got the option '--epochs'"),
        ({"trialCommand": "./trial.sh recipe.yml"}, "trialCommand must be 'nni-proxyless trial"),
        ({"trialCommand": "nni-proxyless trial --recipe recipe.yml --task serch"}, "unknown task 'serch'"),
        ({"searchSpaceFile": "space.yml"}, "give either 'searchSpace' or the path"),
        ({"searchSpaceFile": "space.yml", "searchSpace": "left out"}, "space.yml: No such file"),
        # All values of a range must be valid, and not only its lower end.
        ({"searchSpace": {**TARGET, "seed": {"_type": "uniform", "_value": [0, 9]}}}, "'seed' must be a whole number"),
        ({"searchSpace": {**TARGET, "epochs": {"_type": "quniform", "_value": [9, 30, 0.5]}}}, "'epochs' must be a w"),
        ({"searchSpace": {**TARGET, "momentum": {"_type": "uniform", "_value": [0, 1]}}}, "'momentum' must be a numb"),
        ({"searchSpace": {**TARGET, "learning_rate": {"_type": "normal", "_value": [0.1, 0.1]}}}, "'learning_rate' m"),
        (
            {"searchSpace": choices(seed=[*range(4000)], bn_batches=[*range(4000)])},
            "has 1.6e+07 combinations, of which at most 10000 can be tried; shorten it, or let tuner Random or TPE",
        ),
        (
            {"searchSpace": choices(seed=[*range(101)], bn_batches=[*range(100)]), "tuner": {"name": "gridsearch"}},
            "has 10100 combinations",
        ),
        (
            {
                "searchSpace": choices(seed=[*range(101)], bn_batches=[*range(100)]),
                "tuner": {"name": "TPE"},
                "maxTrialNumber": "left out",
            },
            "at most 10000 can be tried; shorten it, or set maxTrialNumber or maxExperimentDuration",
        ),
    ],
)
def test_configs_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        check_config(changed(tmp_path, **changes))
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


def test_configs_that_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "space.yml").write_text(yaml.safe_dump(TARGET))
    moved = check_config(changed(tmp_path, searchSpaceFile="space.yml", searchSpace="left out"))
    assert (moved.trials, moved.varied) == (1, {"target"})
    for command in (
        "OMP_NUM_THREADS=1 nice nni-proxyless trial --recipe=recipe.yml",
        "./trial.sh --recipe recipe.yml",
        "bash run.sh --gpu 3 --recipe recipe.yml --task search",
        "./nni-proxyless.sh --recipe recipe.yml",
        "cd nni-proxyless && ./start --recipe recipe.yml",
        "cd nni-proxyless; ./start --recipe recipe.yml",
        "conda run -n nni-proxyless nni-proxyless trial --recipe recipe.yml && echo --done",
        "python -m nni_proxyless trial --recipe recipe.yml --debug",
    ):
        assert check_config(changed(tmp_path, trialCommand=command)).recipe_path == tmp_path / "recipe.yml"
    many = choices(seed=[*range(101)], bn_batches=[*range(100)])
    assert check_config(changed(tmp_path, searchSpace=many, tuner={"name": "TPE"}, maxTrialNumber=9)).trials == 9
    for limits in ({"maxExperimentDuration": "12h", "maxTrialNumber": "left out"}, {"maxTrialNumber": 20_000}):
        assert check_config(changed(tmp_path, searchSpace=many, tuner={"name": "TPE"}, **limits)).ends
    epochs = {"_type": "quniform", "_value": [9, 30, 1]}  # NNI sends 9.0, which is a whole number
    assert check_config(changed(tmp_path, searchSpace={**TARGET, "epochs": epochs})).ends
    assert check_config(changed(tmp_path, maxTrialDuration="1.5h", maxExperimentDuration=90)).limits


@pytest.mark.parametrize(
    ("tuner", "limits", "ends"),
    [
        ({"name": "LatencyBudget"}, {}, True),
        ({"name": "GridSearch"}, {}, True),
        ({"name": "TPE"}, {}, False),
        ({"name": "TPE"}, {"maxTrialNumber": 3}, True),
        ({"name": "TPE"}, {"maxExperimentDuration": "3h"}, True),
    ],
)
def test_experiments_without_an_end_are_known(
    tuner: dict[str, str], limits: dict[str, Any], ends: bool, tmp_path: Path
) -> None:
    path = changed(tmp_path, tuner=tuner, **{"maxTrialNumber": "left out", **limits})
    assert check_config(path).ends == ends


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuner": "left out"}, "'tuner' is missing"),
        ({"tuner": "GridSearch"}, "'tuner' must be like {name: LatencyBudget}"),
        ({"tuner": {}}, "'tuner' must have either a 'name' or a 'className'"),
        ({"tuner": {"name": "LatencyBudgt"}}, "unknown tuner 'LatencyBudgt'; did you mean 'LatencyBudget'"),
        ({"tuner": {"name": "Medianstop"}}, "unknown tuner 'Medianstop'"),
        ({"tuner": {"nam": "TPE"}}, "tuner: unknown key 'nam'; did you mean 'name'"),
        ({"tuner": {"name": "TPE", "codeDirectory": "."}}, "codeDirectory is for a 'className'"),
        ({"tuner": {"className": "mine.Tuner"}}, "tuner.className needs tuner.codeDirectory"),
        ({"tuner": {"className": "Tuner", "codeDirectory": "."}}, "tuner.className must be like module.Class"),
        ({"tuner": {"name": "TPE", "classArgs": ["minimize"]}}, "tuner.classArgs must be a mapping"),
        ({"advisor": {"name": "BOHB"}}, "'advisor' is not supported"),
        ({"tuner": {"name": "Hyperband"}}, "tuner Hyperband adds parameters of its own to each trial"),
        ({"assessor": {"name": "Medianstp"}}, "unknown assessor 'Medianstp'; did you mean 'Medianstop'"),
        ({"assessor": {"name": "TPE"}}, "unknown assessor 'TPE'"),
        ({"tuner": {"name": "LatencyBudget", "classArgs": {"tolerence": 1}}}, "unknown argument 'tolerence'; did you"),
        ({"tuner": {"name": "LatencyBudget", "classArgs": {"tolerance": 2}}}, "tolerance must be a number above 0 and"),
        ({"searchSpace": {"seed": {"_type": "randint", "_value": [0, 9]}}}, "searchSpace.seed must be like {_type: ch"),
        ({"searchSpace": choices(latency_weight=[0.1])}, "LatencyBudget finds latency_weight itself"),
        ({"searchSpace": {}}, "the search space must be a mapping of choices, got {}"),
    ],
)
def test_tuners_and_assessors_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        check_tuner(check_config(changed(tmp_path, **changes)))
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


def test_what_another_tuner_says_is_passed_on(tmp_path: Path) -> None:
    """It is tried in a process of its own, which this test starts once."""
    made = check_config(changed(tmp_path, tuner={"name": "GridSearch", "classArgs": {"optimise": 1}}))
    with pytest.raises(InputError, match=r"tuner GridSearch does not start: TypeError: .*'optimise'"):
        check_tuner(made)


FINE = {"name": "Random", "classArgs": {"seed": 1}}
SEEDS = choices(seed=[0, 1])


@pytest.mark.parametrize(
    ("algorithms", "space", "message"),
    [
        ({"tuner": {"name": "TPE"}}, SEEDS, None),
        ({"tuner": FINE, "assessor": {"name": "Medianstop"}}, SEEDS, None),
        ({"tuner": {"name": "TPE", "classArgs": {"optimize_mode": "max"}}}, SEEDS, "tuner TPE does not start"),
        (
            {"tuner": FINE, "assessor": {"name": "Medianstop", "classArgs": {"start": 2}}},
            SEEDS,
            "assessor Medianstop d",
        ),
        (
            {"tuner": {"name": "PBT", "classArgs": {"optimize_mode": "maximize", "population_size": 2}}},
            SEEDS,
            "load_ch",
        ),
        ({"tuner": {"className": "own.Exits", "codeDirectory": "here"}}, SEEDS, "own.Exits does not start: SystemExit"),
        ({"tuner": {"className": "own.Missing", "codeDirectory": "here"}}, SEEDS, "does not start: AttributeError"),
        ({"tuner": {"className": "own.Picky", "codeDirectory": "here"}}, SEEDS, "does not accept the search space: Va"),
        ({"tuner": {"className": "own.Empty", "codeDirectory": "here"}}, SEEDS, "own.Empty chooses no trial: ZeroDivi"),
    ],
)
def test_tuners_are_tried_with_the_search_space(
    algorithms: dict[str, Any], space: dict[str, Any], message: str | None, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "own.py").write_text(
        "import sys\nfrom nni.tuner import Tuner\n"
        "class Exits(Tuner):\n    def __init__(self): sys.exit(3)\n"
        "class Picky(Tuner):\n    def update_search_space(self, space): raise ValueError('no seeds')\n"
        "class Empty(Tuner):\n    def update_search_space(self, space): pass\n"
        "    def generate_parameters(self, number, **_): return 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    described = {
        kind: {**one, "codeDirectory": str(tmp_path)} if "codeDirectory" in one else one
        for kind, one in algorithms.items()
    }
    found = find_fault(described, space, ["seed"])
    if message is None:
        assert found is None
    else:
        assert found is not None
        assert message in found
        assert len(found) < 400


def test_a_tuner_that_does_not_start_in_time_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that creates it is killed then, so it cannot remove its folder itself."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told: list[str] = []

    def find(*_: object) -> None:
        """Write files as a tuner does."""
        told.append(os.environ["NNI_CHECKPOINT_DIRECTORY"])
        Path("model.pt").touch()
        assert (tmp_path / told[0] / "model.pt").exists()
        raise subprocess.TimeoutExpired("tuner", 60)

    def run(words: list[str], *, input: str, **_: object) -> None:
        assert words[-1] == algorithm_check.__name__
        monkeypatch.setattr("sys.stdin", io.StringIO(input))
        algorithm_check.main()

    monkeypatch.setattr(algorithm_check, "find_fault", find)
    monkeypatch.setattr("signal.alarm", lambda _: None)
    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", "before")
    monkeypatch.chdir(tmp_path)
    found = algorithms._fault_elsewhere({"tuner": {"name": "TPE"}}, {}, [])
    assert found == "the tuner did not start within 60 s"
    assert Path(told[0]).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_every_shipped_experiment_is_accepted() -> None:
    for path in sorted((REPOSITORY / "experiments").glob("*/config.yml")):
        content = yaml.safe_load(path.read_text())
        if content["trainingService"]["platform"] == "local" and path.parent.name != "imagenet":
            check_tuner(check_config(path))
    assert plan.TASKS
