"""Experiments with a real NNI manager: all strategies, stop and resume, and kills."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
import requests

from nni_proxyless import Architecture
from nni_proxyless.search.recipe import STRATEGIES
from tests.helpers import Workplace, read_csv, wait_until

pytestmark = pytest.mark.slow
# For the long form of the test, set `NNI_PROXYLESS_KILLS=20`.
KILLS = int(os.environ.get("NNI_PROXYLESS_KILLS", "2"))


def trials_folder(workplace: Workplace, experiment: str) -> Path:
    return workplace.folder / "nni-experiments" / experiment / "environments" / "local-env" / "trials"


def epochs(folder: Path) -> list[int]:
    try:
        return [int(row["epoch"]) for row in csv.DictReader((folder / "history.csv").read_text().splitlines())]
    except OSError:
        return []


def written(workplace: Workplace) -> dict[str, int]:
    """Return the sizes of each trial's history and log in bytes. They grow while a trial is running."""
    files = (workplace.folder / "nni-experiments").glob("*/environments/local-env/trials/*/*")
    return {str(file): file.stat().st_size for file in files if file.name in {"history.csv", "trial.stderr"}}


def wait_for_the_end(workplace: Workplace, succeeded: int) -> None:
    wait_until(
        lambda: ended(workplace, succeeded), seconds=120, progress=lambda: written(workplace), state=workplace.state
    )


def ended(workplace: Workplace, succeeded: int) -> bool:
    """Whether a number of trials has succeeded and none is running. NNI does not report that a tuner has no more."""
    statuses = [job["status"] for job in workplace.api("trial-jobs")]
    return statuses.count("SUCCEEDED") >= succeeded and not {"RUNNING", "WAITING"} & set(statuses)


@pytest.mark.slow(40)
def test_all_strategies_side_by_side(workplace: Workplace) -> None:
    """Run all strategies, two at a time. Each finishes within its budget, and each result has its own parameters."""
    workplace.start_trials_warm()
    workplace.experiment = workplace.folder / "experiments" / "baselines"
    workplace.shrink(epochs=2, warmup_epochs=1, batch_size=256)  # ENAS takes long for each batch
    space = {
        "target": {"_type": "choice", "_value": ["cpu_onnxruntime"]},
        "strategy": {"_type": "choice", "_value": list(STRATEGIES)},
    }
    tuner = {"name": "LatencyBudget", "classArgs": {"max_trials_per_cell": 1}}
    workplace.change("config.yml", {"searchSpace": space, "tuner": tuner})
    done = workplace.command(
        "nni-proxyless", "run", "experiments/baselines/config.yml", "--port", str(workplace.port), "--keep", timeout=900
    )
    assert done.returncode == 0, done.stderr
    rows = read_csv(workplace.folder / "results" / "baselines" / "summary.csv")
    assert sorted(row["strategy"] for row in rows) == sorted(STRATEGIES)
    assert all(float(row["predicted_latency_ms"]) <= float(row["budget_ms"]) for row in rows)

    jobs = workplace.api("trial-jobs")
    experiment = workplace.api("experiment")["id"]
    handed = {
        json.loads(job["hyperParameters"][0])["parameter_id"]: json.loads(job["hyperParameters"][0]) for job in jobs
    }
    assert len(jobs) == len(STRATEGIES)
    for job in jobs:
        (final,) = [m for m in workplace.api(f"metric-data/{job['trialJobId']}") if m["type"] == "FINAL"]
        received = handed[int(final["parameterId"])]["parameters"]
        folder = trials_folder(workplace, experiment) / job["trialJobId"]
        found = Architecture.load(folder / "architecture.json")
        assert found.trial_parameters == received
        assert found.strategy == received["strategy"]
        assert found.metrics == json.loads(json.loads(final["data"]))
    # The tuner sets the latency weight of each strategy that needs one.
    assert sum("latency_weight" in of["parameters"] for of in handed.values()) == len(STRATEGIES) - 2
    journal = workplace.folder / "nni-experiments" / experiment / "checkpoint" / "latency_budget.csv"
    assert len(wait_until(lambda: read_csv(journal))) == len(STRATEGIES)
    workplace.command("nnictl", "stop", experiment)
    wait_until(lambda: not workplace.processes())


@pytest.mark.slow(50)
def test_stop_and_resume_go_on_from_the_checkpoint(workplace: Workplace) -> None:
    """The interrupted trial continues in its epoch, and the other trial starts. No finished epoch is repeated."""
    workplace.start_trials_warm()
    workplace.shrink(epochs=36, share_warmup=False, batch_size=256)
    config = "experiments/quickstart/config.yml"  # as it is shipped, with the tuner that continues where it was
    port = str(workplace.port)
    assert workplace.command("nnictl", "create", "--config", config, "--port", port).returncode == 0
    experiment = workplace.api("experiment")["id"]
    (job,) = wait_until(lambda: workplace.api("trial-jobs"))
    folder = trials_folder(workplace, experiment) / job["trialJobId"]
    wait_until(lambda: len(epochs(folder)) >= 3, seconds=120, progress=lambda: written(workplace))
    assert workplace.command("nnictl", "stop", experiment).returncode == 0
    wait_until(lambda: not workplace.processes())
    before = epochs(folder)
    assert before == list(range(1, len(before) + 1))
    assert len(before) < 36

    assert workplace.command("nnictl", "resume", experiment, "--port", port).returncode == 0
    wait_for_the_end(workplace, 2)
    jobs = workplace.api("trial-jobs")
    assert [j["status"] for j in jobs] == ["SUCCEEDED", "SUCCEEDED"]
    assert job["trialJobId"] in {j["trialJobId"] for j in jobs}
    assert epochs(folder) == list(range(1, 37))
    log = (folder / "trial.stderr").read_text()
    assert f"resuming where the search in {folder} was interrupted" in log
    assert f"epoch {len(before) - 1}/36" not in log, "more than the epoch it was in was lost"
    assert {json.loads(j["hyperParameters"][0])["parameters"]["target"] for j in jobs} == {
        "cpu_torch",
        "cpu_onnxruntime",
    }
    workplace.command("nnictl", "stop", experiment)
    wait_until(lambda: not workplace.processes())


@pytest.mark.slow(100)
def test_kills_at_random_moments(workplace: Workplace) -> None:
    """Kill the manager or a trial repeatedly. No finished trial is lost or repeated, and no process is left."""
    workplace.start_trials_warm()
    workplace.shrink(epochs=16, share_warmup=False)
    seeds = list(range(max(2, KILLS // 2)))
    space = {
        "target": {"_type": "choice", "_value": ["cpu_onnxruntime"]},
        "seed": {"_type": "choice", "_value": seeds},
    }
    workplace.change("config.yml", {"searchSpace": space, "tuner": {"name": "LatencyBudget"}, "maxTrialNumber": 200})
    workplace.command("nni-proxyless", "register")
    port = str(workplace.port)
    create = ("nnictl", "create", "--config", "experiments/quickstart/config.yml", "--port", port)
    assert workplace.command(*create).returncode == 0
    experiment = workplace.api("experiment")["id"]
    draw = random.Random(0)
    # NNI cannot resume an experiment whose manager was killed before it stored the config.
    wait_until(lambda: running(workplace, "trial"))
    finished: dict[str, float] = {}
    killed: set[int] = set()  # seeds of killed trials; each is killed only once, because a second crash is final
    for number in range(KILLS):
        time.sleep(draw.uniform(2, 6))
        folders = trials_folder(workplace, experiment)
        known = {path.parent.name: epochs(path.parent) for path in folders.glob("*/history.csv")}
        if number % 2 == 0:
            for victim in running(workplace, "manager"):
                victim.kill()
            wait_until(lambda: not workplace.processes(), seconds=60)  # no orphaned process is left
            assert workplace.command("nnictl", "resume", experiment, "--port", port).returncode == 0
        else:
            for victim in running(workplace, "trial"):
                seed = seed_of(folders / victim.environ()["NNI_TRIAL_JOB_ID"])
                if seed is not None and seed not in killed:
                    killed.add(seed)
                    victim.kill()
        for name, before in known.items():
            assert epochs(folders / name)[: len(before)] == before, "a finished epoch was lost"
        jobs = workplace.api("trial-jobs")
        succeeded = {j["trialJobId"]: j["endTime"] for j in jobs if j["status"] == "SUCCEEDED"}
        lost = [name for name, end in finished.items() if succeeded.get(name) != end]
        assert not lost, "a finished trial was lost or repeated"
        finished = succeeded
    wait_for_the_end(workplace, len(seeds))
    jobs = workplace.api("trial-jobs")
    done = {j["trialJobId"]: seed_of(folders / j["trialJobId"]) for j in jobs if j["status"] == "SUCCEEDED"}
    assert sorted(done.values()) == seeds  # type: ignore[type-var]
    assert all(j["endTime"] == finished[j["trialJobId"]] for j in jobs if j["trialJobId"] in finished)
    assert all(epochs(folders / name) == list(range(1, 17)) for name in done)
    for job in jobs:
        if job["status"] == "FAILED" and epochs(folders / job["trialJobId"]):
            (again,) = [name for name, seed in done.items() if seed == seed_of(folders / job["trialJobId"])]
            assert "resuming where the search" in (folders / again / "trial.stderr").read_text()
    workplace.command("nnictl", "stop", experiment)
    wait_until(lambda: not workplace.processes())


def seed_of(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / "parameters.json").read_text())["seed"])
    except OSError:
        return None


def running(workplace: Workplace, kind: str) -> list[psutil.Process]:
    return [process for process in workplace.processes() if is_kind(process, kind)]


def is_kind(process: psutil.Process, kind: str) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "nni_node" in words and "main.js" in words if kind == "manager" else "nni-proxyless trial" in words


@pytest.mark.slow(40)
def test_run_is_stopped_and_goes_on(workplace: Workplace) -> None:
    """SIGTERM, as from Slurm, stops everything, with a command that goes on. Trials made by hand run no programs."""
    workplace.start_trials_warm()
    workplace.shrink(epochs=36, share_warmup=False, batch_size=256)
    space = {"target": {"_type": "choice", "_value": ["cpu_onnxruntime"]}}
    workplace.change("config.yml", {"searchSpace": space, "maxTrialNumber": 2, "trialConcurrency": 2})
    mark = workplace.folder / "started"
    command = {"backend": "command", "command": f"touch {mark}; echo 1 {{model}}"}
    by_hand = {"target": "cpu_onnxruntime", "targets": {"cpu_onnxruntime": command}}
    # SIGKILL of `run` alone: its manager and its trials end by themselves, and the next `run` starts.
    words = ["nni-proxyless", "run", "experiments/quickstart/config.yml", "--port", str(workplace.port)]
    killed = workplace.start(*words)
    wait_until(
        lambda: "trial 0 running" in killed.stderr and running(workplace, "trial"), seconds=120, state=workplace.state
    )
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    wait_until(lambda: not workplace.processes())
    assert not list((workplace.folder / "results").rglob("*"))
    process = workplace.start(*words)
    wait_until(
        lambda: "trial 0 running" in process.stderr, seconds=120, state=lambda: process.stderr + workplace.state()
    )
    url = f"http://localhost:{workplace.port}/api/v1/nni/trial-jobs"
    assert requests.post(url, json=by_hand, timeout=20).ok
    wait_until(lambda: "trial 1 failed" in process.stderr, seconds=120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, process.stderr
    lines = process.stderr.splitlines()
    assert not any("trial 0 result 36:" in line for line in lines)  # it was interrupted
    wait_until(lambda: not workplace.processes())
    assert not mark.exists()
    assert lines[-1].startswith("nni-proxyless run: ended by SIGTERM; finished trials and checkpoints are kept in ")
    assert not any("ERROR" in line for line in lines)
    words = lines[-1].split("; continue with: ")[1].split()
    assert workplace.command(*words).returncode == 0
    with pytest.raises(ConnectionRefusedError):  # of a server on all interfaces, this address would answer
        socket.create_connection(("127.0.0.2", workplace.port), timeout=20)
    wait_for_the_end(workplace, 1)
    experiment = workplace.api("experiment")["id"]
    searched, refused = workplace.api("trial-jobs")
    assert [job["status"] for job in (searched, refused)] == ["SUCCEEDED", "FAILED"]
    assert epochs(trials_folder(workplace, experiment) / searched["trialJobId"]) == list(range(1, 37))
    log = (trials_folder(workplace, experiment) / refused["trialJobId"] / "trial.stderr").read_text()
    assert "does not offer: unknown key 'targets'" in log
    workplace.command("nnictl", "stop", experiment)
    wait_until(lambda: not workplace.processes())
