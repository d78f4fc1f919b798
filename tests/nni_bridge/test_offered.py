"""What a trial accepts from NNI's manager, whose port has no password, and how it runs under other launchers."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import InputError
from nni_proxyless.nni_bridge import trial
from nni_proxyless.nni_bridge.offered import Offer, check_offered, find_offers
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY

QUICKSTART = REPOSITORY / "experiments" / "quickstart"
CONTENT = yaml.safe_load((QUICKSTART / "recipe.yml").read_text())
SPACE = {
    "target": {"_type": "choice", "_value": ["cpu_torch", "cpu_onnxruntime"]},
    "strategy": {"_type": "choice", "_value": ["proxyless", "mine.module:Search"]},
    "space": {"_type": "choice", "_value": ["wide.yml", "narrow.yml"]},
    "budget_ms": {"_type": "uniform", "_value": [1, 9]},
    "seed": {"_type": "choice", "_value": [0, 1]},
}
CONFIG = {
    "searchSpace": SPACE,
    "tuner": {"name": "LatencyBudget"},
    "trialCommand": "nni-proxyless trial --recipe r.yml",
}
COMMAND = {"cpu_torch": {"backend": "command", "command": "touch /tmp/x {model}"}}


def offer(**changes: Any) -> Offer:
    made = Offer.of_config("experiment abc", {**CONFIG, **changes})
    assert made is not None
    return made


@pytest.mark.parametrize(
    "parameters",
    [
        {"target": "cpu_torch", "seed": 1},
        {"target": "cpu_torch", "seed": 77},  # made by hand: the recipe checks the range
        {"budget_ms": 3.25, "strategy": "mine.module:Search"},
        {"space": "narrow.yml", "latency_weight": 0.4},
        {"strategy": "darts"},  # a name of this package
        {},
    ],
)
def test_what_the_search_space_offers_is_accepted(parameters: dict[str, Any]) -> None:
    assert check_offered(parameters, [offer()], Recipe, CONTENT) == parameters


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"targets": COMMAND},
            r"sent a key that experiment abc does not offer: unknown key 'targets'.*allowed: budget_ms, lat",
        ),
        ({"target": "cpu_torch", "targets": COMMAND}, "unknown key 'targets'"),
        ({"strategy_args": {"a": 1}}, "unknown key 'strategy_args'"),
        ({"data_dir": "/etc"}, "unknown key 'data_dir'"),
        ({"epochs": 1}, "unknown key 'epochs'"),
        ({"strategy": "os:system"}, r"sent strategy: 'os:system', but experiment abc offers only 'proxyless', 'mine"),
        (
            {"space": "/etc/passwd"},
            r"sent space: '/etc/passwd', but experiment abc offers only 'wide.yml', 'narrow.yml'",
        ),
        ({"space": "../wide.yml"}, "offers only 'wide.yml'"),
        ({"target": {"backend": "command"}}, "sent target: {'backend': 'command'}, but"),
        ({"seed": ["x"]}, r"sent seed: \['x'\], but experiment abc offers only 0, 1"),
        ({"budget_ms": "1e-3"}, "sent budget_ms: '1e-3', but experiment abc offers only"),
        ({"x" * 100_000: 1}, "unknown key 'xxx"),
        ({"space": "x" * 100_000}, "sent space: 'xxx"),
        ([1], "must be a mapping, got"),
        ("targets", "must be a mapping, got 'targets'"),
        (None, "must be a mapping, got None"),
    ],
)
def test_what_the_search_space_does_not_offer_is_refused(parameters: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        check_offered(parameters, [offer()], Recipe, CONTENT)
    assert len(str(raised.value)) < 700


def test_only_the_experiments_own_tuner_adds_the_latency_weight() -> None:
    other = {"name": "LatencyBudget", "classArgs": {"weight_key": "budget_ms"}}
    for tuner in ({"name": "TPE"}, other, None):
        with pytest.raises(InputError, match="unknown key 'latency_weight'"):
            check_offered({"latency_weight": 1.0}, [offer(tuner=tuner)], Recipe, CONTENT)


def test_a_search_space_may_vary_programs_itself() -> None:
    space = {"targets": {"_type": "choice", "_value": [COMMAND]}}
    assert check_offered({"targets": COMMAND}, [offer(searchSpace=space)], Recipe, CONTENT) == {"targets": COMMAND}


def test_without_a_search_space_only_names_that_need_no_trust_are_accepted() -> None:
    good = {"target": "cpu_torch", "strategy": "darts", "seed": 3, "objective": "add_linear", "data": CONTENT["data"]}
    assert check_offered(good, [], Recipe, CONTENT) == good
    for bad in ({"targets": COMMAND}, {"strategy_args": {}}):
        with pytest.raises(InputError, match="which a trial takes from its recipe only"):
            check_offered(bad, [], Recipe, CONTENT)
    for bad in ({"strategy": "os:system"}, {"space": "/tmp/x.yml"}, {"data_dir": "/etc"}):
        with pytest.raises(InputError, match="but the recipe, with no config beside it, offers only"):
            check_offered(bad, [], Recipe, CONTENT)
    with pytest.raises(InputError, match=r"sent inherit: 'x.pt'"):
        check_offered({"inherit": "x.pt"}, [], RetrainRecipe, {})


def stored(home: Path, *profiles: dict[str, Any]) -> Path:
    """Make an experiment's folder with the manager's database, whose tables are those of NNI 3.0's sqlDatabase.js."""
    (home / "db").mkdir(parents=True)
    database = sqlite3.connect(home / "db" / "nni.sqlite")
    database.execute(
        "create table ExperimentProfile (params text, id text, execDuration integer, startTime integer, "
        "endTime integer, logDir text, nextSequenceId integer, revision integer)"
    )
    for number, profile in enumerate(profiles):
        row = (json.dumps(profile), home.name, 0, 0, None, "", 0, 1 if number == 0 else 1 - number)
        database.execute("insert into ExperimentProfile values (?,?,?,?,?,?,?,?)", row)
    database.commit()
    database.close()
    output = home / "environments" / "local-env" / "trials" / "abcde"
    output.mkdir(parents=True)
    return output


def test_the_search_space_is_that_with_which_the_experiment_was_started(tmp_path: Path) -> None:
    """A later one, as PUT /experiment?update_type=SEARCH_SPACE stores it, counts for nothing."""
    later = {**CONFIG, "searchSpace": {"targets": {"_type": "choice", "_value": [COMMAND]}}}
    output = stored(tmp_path / "own1", CONFIG, later, later)
    (found,) = find_offers(output, tmp_path / "r.yml")
    assert found == Offer("experiment own1", {**found.values, "seed": [0, 1]}, "latency_weight")
    assert set(found.values) == set(SPACE)
    assert found.values["budget_ms"] == []  # a range


def test_on_another_machine_the_config_lies_beside_the_recipe(tmp_path: Path) -> None:
    """The remote training service copies their folder. Other files there are none of this recipe's configs."""
    code, output = tmp_path / "code", tmp_path / "exp" / "environments" / "e" / "trials" / "abcde"
    code.mkdir()
    output.mkdir(parents=True)
    recipe = code / "r.yml"
    recipe.write_text("data: digits\n")
    assert find_offers(output, recipe) == []
    (code / "config.yml").write_text(yaml.safe_dump(CONFIG))
    (code / "other.yaml").write_text(yaml.safe_dump({**CONFIG, "trialCommand": "nni-proxyless trial --recipe x.yml"}))
    (code / "broken.yml").write_text("a: [")
    (code / "apart.yml").write_text(yaml.safe_dump({**CONFIG, "searchSpace": None, "searchSpaceFile": "s.json"}))
    (code / "s.json").write_text(json.dumps({"seed": SPACE["seed"]}))
    found = {one.source: set(one.values) for one in find_offers(output, recipe)}
    assert found == {f"config {code / 'config.yml'}": set(SPACE), f"config {code / 'apart.yml'}": {"seed"}}


def test_a_damaged_database_is_no_database(tmp_path: Path) -> None:
    output = stored(tmp_path / "own1", CONFIG)
    (tmp_path / "own1" / "db" / "nni.sqlite").write_bytes(b"no database" * 1000)
    assert find_offers(output, tmp_path / "r.yml") == []


class FakeChannel:
    """Stands in for the connection to the manager."""

    finals: list[Any]

    def __init__(self) -> None:
        self.parameters: Any = FakeChannel.sent

    sent: Any = None

    def final(self, metrics: Any) -> None:
        FakeChannel.finals.append(metrics)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A trial with a manager and a search that only record what they get."""
    output = stored(tmp_path / "own1", {**CONFIG, "searchSpace": {"target": SPACE["target"]}})
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_PROCID", "NNI_PROXYLESS_RANKS_OF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "abcde")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(output))
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setattr(trial, "ManagerChannel", FakeChannel)
    monkeypatch.setattr(trial, "link_tensorboard", lambda _: None)
    found = SimpleNamespace(searches=[], output=output, recipe=tmp_path / "recipe.yml")
    FakeChannel.finals, FakeChannel.sent = [], {"target": "cpu_torch"}
    shutil.copyfile(QUICKSTART / "recipe.yml", found.recipe)

    def run_search(recipe: Any, *_: Any) -> Any:
        ranks = {name: value for name, value in os.environ.items() if "RANK" in name or "WORLD" in name}
        found.searches.append((recipe.target, ranks))

    monkeypatch.setattr("nni_proxyless.report.found.found_lines", lambda *_: [])
    monkeypatch.setattr("nni_proxyless.search.prepared.prepare", lambda recipe: recipe)
    monkeypatch.setattr("nni_proxyless.search.run.run_search", run_search)
    return found


def test_a_trial_with_numbers_of_another_launcher_is_an_ordinary_trial(
    started: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`run` and nnictl pass on their environment, which srun or torchrun may have numbered."""
    for name, value in {"LOCAL_RANK": "1", "RANK": "3", "WORLD_SIZE": "4", "SLURM_PROCID": "3"}.items():
        monkeypatch.setenv(name, value)
    trial.run_trial(started.recipe)
    ((target, ranks),) = started.searches
    assert target == "cpu_torch"
    assert ranks == {"NNI_PROXYLESS_RANKS_OF": str(os.getpid())}
    assert FakeChannel.finals == [{}]
    assert "ignoring LOCAL_RANK=1" in caplog.text
    assert os.environ["LOCAL_RANK"] == "1"


def test_a_process_for_another_device_asks_for_no_parameters(
    started: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_trial(started.recipe)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("NNI_PROXYLESS_RANKS_OF", str(os.getppid()))
    trial.run_trial(started.recipe)
    assert [target for target, _ in started.searches] == ["cpu_torch", "cpu_torch"]
    assert FakeChannel.finals == [{}]


def test_a_trial_refuses_what_was_not_offered_before_it_writes_anything(started: SimpleNamespace) -> None:
    FakeChannel.sent = {"target": "cpu_torch", "targets": COMMAND}
    with pytest.raises(InputError, match="does not offer: unknown key 'targets'"):
        trial.run_trial(started.recipe)
    assert not started.searches
    assert not FakeChannel.finals
    assert list(started.output.iterdir()) == []
