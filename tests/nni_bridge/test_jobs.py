"""Trials made by hand in NNI's web UI: the answer of a real manager, the follower of `run`, and their results."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nni_proxyless.deploy.retrain_epochs import RetrainRecord
from nni_proxyless.errors import RunError
from nni_proxyless.nni_bridge import run
from nni_proxyless.nni_bridge.jobs import Job, list_jobs
from nni_proxyless.nni_bridge.plan import Plan
from tests.helpers import REPOSITORY

RECORDED = REPOSITORY / "tests" / "recorded" / "quickstart"
# Two trials as NNI 3.0's manager lists them. The second was made by POST /trial-jobs: it has no `parameter_index`, and
# NNI's own client ends with "missing 1 required positional argument: 'parameter_index'".
LISTED = [
    {
        "trialJobId": "byhan",
        "status": "SUCCEEDED",
        "hyperParameters": [
            '{"parameter_id":null,"parameter_source":"customized","parameters":{"target":"cpu_torch"}}'
        ],
        "sequenceId": 1,
        "startTime": 2,
        "endTime": 3,
    },
    {
        "trialJobId": "tuner",
        "status": "SUCCEEDED",
        "hyperParameters": [
            '{"parameter_id": 0, "parameter_source": "algorithm", "parameters": {"target": "cpu_torch"}, '
            '"parameter_index": 0}'
        ],
        "sequenceId": 0,
        "startTime": 1,
        "endTime": 2,
    },
    {"trialJobId": "waits", "status": "WAITING", "sequenceId": 2},
]


class FakeExperiment:
    """Stands in for NNI's Experiment, with a status for each look at it."""

    port, url_prefix, id = 1, None, "own1"

    def __init__(self, *statuses: str, metrics: list[Any] | None = None, errors: tuple[str, ...] = ()) -> None:
        self.statuses = list(statuses)
        self.metrics = metrics or []
        self.errors = errors

    def get_status(self) -> str:
        return self.statuses.pop(0)

    def get_job_metrics(self, job: str) -> dict[str, list[Any]]:
        return {job: self.metrics}

    def get_experiment_profile(self) -> dict[str, Any]:
        return {"errors": list(self.errors)}


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found = [dict(job) for job in LISTED]
    monkeypatch.setattr("nni.experiment.rest.get", lambda *_: json.loads(json.dumps(found)))
    monkeypatch.setattr(run.time, "sleep", lambda _: None)
    return found


def test_trials_made_by_hand_are_listed(listed: list[dict[str, Any]]) -> None:
    found = list_jobs(FakeExperiment())
    assert [job.trialJobId for job in found] == ["tuner", "byhan", "waits"]
    assert [job.by_hand for job in found] == [False, True, False]
    assert [len(job.hyperParameters) for job in found] == [1, 1, 0]
    assert found[1].hyperParameters[0].parameters == {"target": "cpu_torch"}
    assert Job.parse({**LISTED[0], "hyperParameters": ["null", "[]", "3"]}).hyperParameters == []


def metric(data: Any, sequence: int = 0) -> SimpleNamespace:
    return SimpleNamespace(type="PERIODICAL", data=data, sequence=sequence)


def test_run_follows_them_and_passes_over_metrics_of_other_programs(
    listed: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    good = {"default": 0.5, "top5": 0.9, "train_loss": 1.0}
    experiment = FakeExperiment("RUNNING", "DONE", metrics=[metric(good), metric({"default": "<b>"}), metric([1])])
    plan = Plan(Path("c.yml"), Path("r.yml"), (), 1)
    caplog.set_level(logging.INFO)
    run._follow(experiment, tmp_path, run._Follower(plan), plan)
    assert "trial 1 succeeded: target=cpu_torch" in caplog.text
    assert caplog.text.count("trial 1 result 1: accuracy 0.5000, top-5 0.9000, loss 1.000") == 1
    assert caplog.text.count("trial 1 result") == 1


@pytest.mark.parametrize(("late_s", "seen"), [(30.0, True), (3600.0, False)])
def test_run_waits_for_a_trial_that_nni_does_not_list_yet(
    late_s: float, seen: bool, listed: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On a busy machine, NNI took nine seconds from the tuner's last trial to the trial's place in its list."""
    trial = listed[0] | {"status": "SUCCEEDED"}
    listed.clear()
    clock = [1000.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] > 1000.0 + late_s and not listed:
            listed.append(trial)

    monkeypatch.setattr(run.time, "sleep", sleep)
    monkeypatch.setattr(run.time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO)
    experiment = FakeExperiment(*["TUNER_NO_MORE_TRIAL"] * 300)
    plan = Plan(Path("c.yml"), Path("r.yml"), (), 1)
    run._follow(experiment, tmp_path, run._Follower(plan), plan)
    assert ("succeeded: target=cpu_torch" in caplog.text) == seen
    assert clock[0] - 1000.0 < late_s + run.GRACE_S + 3 if seen else clock[0] - 1000.0 < 65


def test_a_failed_experiment_says_why(listed: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "dispatcher.log").write_text("[2026-01-01 10:00:00] ERROR (nni.main/Thread-1) no such key\n")
    experiment = FakeExperiment("ERROR", errors=("tuner may have crashed", "x" * 10_000))
    with pytest.raises(RunError, match=r"own1 failed: tuner may have crashed; x+ \(dispatcher.log: ERROR.*no such key"):
        run._follow(experiment, tmp_path, run._Follower(Plan(Path(), Path(), (), 1)), Plan(Path(), Path(), (), 1))


def test_long_parameters_are_cut() -> None:
    assert len(run._short({"targets": "x" * 1_000_000, **{f"k{n}": n for n in range(1000)}})) <= 401


def test_their_results_do_not_take_the_folder_of_the_tuners(listed: list[dict[str, Any]], tmp_path: Path) -> None:
    trials = tmp_path / "home" / "environments" / "local-env" / "trials"
    for name in ("byhan", "tuner"):
        (trials / name).mkdir(parents=True)
        shutil.copyfile(RECORDED / "cpu_torch" / "architecture.json", trials / name / "architecture.json")
    used: set[Path] = set()
    jobs = sorted(list_jobs(FakeExperiment()), key=lambda job: job.by_hand)
    found = {job.trialJobId: run._collect(job, tmp_path / "home", tmp_path / "results", used) for job in jobs}
    assert found["tuner"].folder == tmp_path / "results" / "cpu_torch"
    assert found["byhan"].folder == tmp_path / "results" / "cpu_torch" / "byhan"
    assert [found[name].by_hand for name in ("tuner", "byhan", "waits")] == [False, True, False]


def test_a_result_that_cannot_be_read_does_not_cost_the_others(listed: list[dict[str, Any]], tmp_path: Path) -> None:
    trials = tmp_path / "home" / "environments" / "local-env" / "trials"
    for name, text in (("byhan", "{"), ("tuner", (RECORDED / "cpu_torch" / "architecture.json").read_text())):
        (trials / name).mkdir(parents=True)
        (trials / name / "architecture.json").write_text(text)
    used: set[Path] = set()
    found = {
        job.trialJobId: run._collect(job, tmp_path / "home", tmp_path / "results", used)
        for job in list_jobs(FakeExperiment())
    }
    assert found["tuner"].architecture is not None
    assert found["byhan"].architecture is None
    assert str(trials / "byhan" / "architecture.json") in found["byhan"].reason


def test_trials_whose_place_was_taken_are_counted() -> None:
    jobs = [Job.parse(described) for described in LISTED]
    plan = Plan(Path("c.yml"), Path("r.yml"), (), 4)
    assert run._displaced(jobs, plan) == (
        "1 trial made by hand counts for maxTrialNumber, so 2 of 4 trials of the tuner were run; "
        "raise maxTrialNumber in the web UI before adding trials"
    )
    assert run._displaced(jobs[1:], plan) is None
    assert run._displaced(jobs, Plan(Path("c.yml"), Path("r.yml"), (), 2)) is None


def test_results_without_a_finite_loss_are_shown() -> None:
    """A search and a retraining leave it out of what they send."""
    search = {"default": 0.5, "latency_ms": 2.0, "expected_latency_ms": 3.0, "entropy": 0.25}
    assert run._is_result(search)
    assert run._result(search) == ("accuracy 0.5000, latency 2 ms (expected 3), entropy 0.25, loss not finite")
    retraining = RetrainRecord(0.5, 0.75, math.inf).metrics()
    assert retraining == {"default": 0.5, "top5": 0.75}
    assert run._is_result(retraining)
    assert run._result(retraining) == "accuracy 0.5000, top-5 0.7500, loss not finite"
    assert run._result({**retraining, "train_loss": 0.125}) == "accuracy 0.5000, top-5 0.7500, loss 0.125"
    assert not run._is_result({"default": 0.5})
    assert not run._is_result({**search, "entropy": "much"})
