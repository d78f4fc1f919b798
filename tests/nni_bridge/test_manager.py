"""Start of NNI's manager by `run`: ports, foreign managers, failed starts, GPUs and limits of time."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import requests
import yaml

from nni_proxyless.cli import entry
from nni_proxyless.errors import InputError, RunError
from nni_proxyless.nni_bridge import manager, plan, run
from nni_proxyless.nni_bridge.collect import Outcome
from nni_proxyless.nni_bridge.manager import check_port, start_manager, stop_manager, terminated_like_ctrl_c
from nni_proxyless.nni_bridge.plan import Plan, check_config, check_results
from nni_proxyless.signals import Stopped
from tests.helpers import REPOSITORY, free_port
from tests.warm import run_warm


class FakeExperiment:
    """Stands in for NNI's Experiment. Each start takes the next outcome: an exception, a foreign id, or a status."""

    outcomes: ClassVar[list[Any]] = []
    started: ClassVar[list[int]] = []

    def __init__(self, _config: Any) -> None:
        self.id = f"own{len(self.started)}"
        self._proc = SimpleNamespace(kill=lambda: None)
        self._outcome: Any = None

    def start(self, port: int, _debug: bool, _mode: Any) -> None:
        self.started.append(port)
        self._outcome = self.outcomes.pop(0)
        if isinstance(self._outcome, Exception):
            raise self._outcome

    def get_experiment_profile(self) -> dict[str, Any]:
        foreign = isinstance(self._outcome, dict)
        return {"id": self._outcome["id"] if foreign else self.id, "errors": ["Tuner did not connect in 10 seconds."]}

    def get_status(self) -> str:
        return self._outcome if isinstance(self._outcome, str) else "RUNNING"

    def list_trial_jobs(self) -> list[Any]:
        return []

    def stop(self) -> None:
        return


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr("nni.experiment.Experiment", FakeExperiment)
    FakeExperiment.outcomes, FakeExperiment.started = [], []
    return SimpleNamespace(canonical_copy=lambda: SimpleNamespace(experiment_working_directory=str(tmp_path)))


@pytest.mark.parametrize(
    "first", [RuntimeError("Expecting value: line 1 column 1 (char 0)"), "ERROR", {"id": "foreign"}]
)
def test_a_start_that_fails_is_repeated_once(first: Any, config: Any, caplog: pytest.LogCaptureFixture) -> None:
    FakeExperiment.outcomes = [first, "RUNNING"]
    experiment, port = start_manager(config, None)
    assert experiment.id == "own1"
    assert FakeExperiment.started[1] == port
    reasons = {RuntimeError: "Expecting value", str: "Tuner did not connect", dict: "another manager, of experiment f"}
    assert reasons[type(first)] in caplog.text


def test_two_failed_starts_say_why(config: Any, tmp_path: Path) -> None:
    FakeExperiment.outcomes = [RuntimeError("Expecting value"), RuntimeError("Expecting value")]
    log = tmp_path / "own1" / "log"
    log.mkdir(parents=True)
    (log / "nnimanager.log").write_text("[2026-01-01] INFO x\n[2026-01-01 10:00:00] ERROR (main) no space left\n")
    with pytest.raises(RunError, match=r"did not start in 2 tries: Expecting value \(nnimanager.log: .*no space left"):
        start_manager(config, free_port())


def test_the_first_free_port_is_chosen_when_the_manager_starts(config: Any) -> None:
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        with pytest.raises(InputError, match=f"port {taken} is busy"):
            check_port(taken)
        original, manager.FIRST_PORT = manager.FIRST_PORT, taken
        try:
            FakeExperiment.outcomes = ["RUNNING"]
            assert start_manager(config, None)[1] > taken
        finally:
            manager.FIRST_PORT = original
    for port in (0, 70000):
        with pytest.raises(InputError, match="port must be from 1 to 65535"):
            check_port(port)


def test_two_runs_at_once_take_different_ports(config: Any) -> None:
    """While one `run` is starting a manager, the other one waits. Then it finds the first port busy."""
    servers: list[HTTPServer] = []

    class Listening(FakeExperiment):
        def start(self, port: int, debug: bool, mode: Any) -> None:
            servers.append(HTTPServer(("", port), BaseHTTPRequestHandler))
            super().start(port, debug, mode)

    import nni.experiment

    nni.experiment.Experiment = Listening  # type: ignore[misc]  # the fixture restores it
    FakeExperiment.outcomes = ["RUNNING", "RUNNING"]
    ports: list[int] = []
    threads = [threading.Thread(target=lambda: ports.append(start_manager(config, None)[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for server in servers:
        server.server_close()
    assert len(set(ports)) == 2


SIGNALLED = """
import os, signal
from nni_proxyless.nni_bridge.manager import terminated_like_ctrl_c

for number in (signal.SIGTERM, signal.SIGHUP):
    before = signal.getsignal(number)
    try:
        with terminated_like_ctrl_c():
            os.kill(os.getpid(), number)
            signal.pause()
    except KeyboardInterrupt:
        print(f"interrupted by {number.name}", signal.getsignal(number) is before)
"""


def test_signals_that_end_processes_act_like_ctrl_c(tmp_path: Path) -> None:
    """They are sent to another process, so that a mistake does not end the tests."""
    done = run_warm(["python", "-c", SIGNALLED], tmp_path)
    assert done.stdout.splitlines() == ["interrupted by SIGTERM True", "interrupted by SIGHUP True"], done.stderr


def test_nohup_keeps_a_run_alive_when_the_terminal_closes() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminated_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_during_the_start_leaves_no_manager(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(manager, "_kill_managers", stopped.append)
    FakeExperiment.outcomes = [KeyboardInterrupt()]
    monkeypatch.setattr(FakeExperiment, "start", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        start_manager(config, None)
    assert stopped == ["own0"]


class Process:
    """The process of a manager that ends when it has been asked to; else `wait` raises what it was made with."""

    def __init__(self, ends: BaseException | None) -> None:
        self.ends = ends

    def wait(self, _seconds: float) -> int:
        if self.ends is not None:
            raise self.ends
        return 0


@pytest.mark.parametrize(
    ("answer", "ends", "killed"),
    [
        (None, None, []),
        (requests.Timeout("read timed out"), None, []),  # it stops, but answers too late
        (requests.ConnectionError("refused"), subprocess.TimeoutExpired("node", 60), ["own0"]),
        (None, KeyboardInterrupt(), ["own0"]),  # Ctrl-C once more
        (KeyboardInterrupt(), None, ["own0"]),
    ],
)
def test_a_manager_is_stopped_without_errors_of_nni(
    answer: BaseException | None,
    ends: BaseException | None,
    killed: list[str],
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, found = [], []

    def delete(port: int, api: str, prefix: str | None) -> None:
        asked.append((port, api, prefix))
        logging.getLogger("nni.experiment.rest").error("rest request failed")
        if answer is not None:
            raise answer

    monkeypatch.setattr("nni.experiment.rest.delete", delete)
    monkeypatch.setattr(manager, "_kill_managers", found.append)
    before = logging.getLogger("nni.experiment").level
    experiment: Any = FakeExperiment(None)
    experiment._proc, experiment.port, experiment.url_prefix = Process(ends), 8081, None
    with caplog.at_level(logging.INFO):
        stop_manager(experiment)
    assert asked == [(8081, "/experiment", None)]
    assert found == killed
    assert experiment._proc is None
    assert caplog.messages == ["stopping NNI's manager and its trials"]
    assert logging.getLogger("nni.experiment").level == before


@pytest.mark.parametrize(("survives", "last"), [(True, "--port 8081"), (False, "continues where it was (docs/nni.md)")])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Stopped(signal.SIGTERM)])
def test_an_interrupted_run_says_in_one_line_how_to_go_on(
    stop: KeyboardInterrupt, survives: bool, last: str, config: Any, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    """Everything but NNI and the following of the experiment is real. The last line is the command's only one."""
    made = replace(check_config(changed(tmp_path)), survives=survives)
    experiment: Any = FakeExperiment(None)
    experiment._proc, experiment.port, experiment.url_prefix = Process(None), 8081, None
    monkeypatch.setattr("nni.experiment.rest.delete", lambda *_: None)
    monkeypatch.setattr(run, "load_config", lambda _plan: config)
    monkeypatch.setattr(run, "start_manager", lambda _config, _port: (experiment, 8081))
    for name in ("register", "_say_where"):
        monkeypatch.setattr(run, name, lambda *_: None)
    monkeypatch.setattr(run, "_follow", lambda *_: (_ for _ in ()).throw(stop))

    def start(_options: object) -> int:
        run.run_experiment(made, None)
        return 0

    number = stop.number if isinstance(stop, Stopped) else 2
    options = argparse.Namespace(command="run", debug=False, run=start)
    assert entry._exit_code(options, ["run", "quickstart"]) == 128 + number
    (told,) = capsys.readouterr().err.strip().splitlines()
    ended = "interrupted" if number == 2 else "ended by SIGTERM"
    assert told.startswith(
        f"nni-proxyless run: {ended}; finished trials and checkpoints are kept in {tmp_path / experiment.id}; "
        f"continue with: nni-proxyless nnictl resume {experiment.id} --port 8081"
    )
    assert told.endswith(last)


def changed(tmp_path: Path, **changes: Any) -> Path:
    (tmp_path / "recipe.yml").write_text((REPOSITORY / "experiments" / "quickstart" / "recipe.yml").read_text())
    content = yaml.safe_load((REPOSITORY / "experiments" / "quickstart" / "config.yml").read_text())
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def test_gpus_that_nni_does_not_find_are_named_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "gpus_seen_by_nni", lambda: 0)
    with pytest.raises(InputError, match="trialGpuNumber is 1, but NNI finds no GPU on this machine"):
        check_config(changed(tmp_path, trialGpuNumber=1))
    with pytest.raises(InputError, match="trialGpuNumber is 2, but NNI finds no GPU"):
        check_config(changed(tmp_path, trainingService={"platform": "local", "trialGpuNumber": 2}))
    monkeypatch.setattr(plan, "gpus_seen_by_nni", lambda: 1)
    assert check_config(changed(tmp_path, trialGpuNumber=1)).trials == 2
    assert check_config(changed(tmp_path, trialGpuNumber=0)).trials == 2


def test_every_shipped_experiment_has_a_tuner_that_goes_on_after_a_resume() -> None:
    for path in sorted((REPOSITORY / "experiments").glob("*/config.yml")):
        tuner = yaml.safe_load(path.read_text())["tuner"]
        assert plan._survives(tuner), path
    for other in ({"name": "GridSearch"}, {"name": "TPE"}, {"className": "mine.Tuner"}, None):
        assert not plan._survives(other)


def last_line_of_a_trial(stop: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints if a signal ends it. NNI 3.0 sends SIGTERM to a trial at maxTrialDuration."""

    def ended(_options: object) -> int:
        raise stop

    assert entry._exit_code(argparse.Namespace(command="trial", debug=False, run=ended), ["trial"]) > 128
    return capsys.readouterr().err.strip()


def test_a_limit_of_time_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    limits = {"maxExperimentDuration": "1h", "maxTrialDuration": "10m"}
    ended = Outcome("abc", {}, "USER_CANCELED", reason="epoch 3/30: accuracy 0.9")
    assert run._with_limit(ended, limits).reason == (
        "NNI ended it because of maxExperimentDuration: 1h or maxTrialDuration: 10m"
    )
    assert run._with_limit(ended, {}) == ended
    failed = replace(ended, status="FAILED")
    assert run._with_limit(failed, limits) == failed
    for stop in (Stopped(signal.SIGTERM), Stopped(signal.SIGHUP), KeyboardInterrupt()):
        interrupted = replace(failed, reason=last_line_of_a_trial(stop, capsys))
        assert run._with_limit(interrupted, {"maxTrialDuration": "25s"}).reason == (
            "NNI ended it because of maxTrialDuration: 25s"
        )
        assert run._with_limit(interrupted, {}) == interrupted
    made = Plan(Path("c.yml"), Path("r.yml"), (), 3, limits={"maxExperimentDuration": "1h"})
    jobs = [SimpleNamespace(status=s) for s in ("SUCCEEDED", "USER_CANCELED")]
    assert run._cut_short(jobs, made) == "maxExperimentDuration: 1h has ended the experiment after 1 of 3 trials"
    assert run._cut_short(jobs, replace(made, trials=1)) is None
    assert run._cut_short(jobs, replace(made, limits={})) is None


def test_results_of_another_recipe_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = check_config(changed(tmp_path))
    folder = made.results / "cpu_torch"
    folder.mkdir(parents=True)
    check_results(made)
    earlier: Any = made.recipes[0]
    (folder / "recipe.yml").write_text(yaml.safe_dump(earlier.to_dict(absolute=True)))
    check_results(made)
    other = {**earlier.to_dict(absolute=True), "epochs": 7, "seed": 3}
    (folder / "recipe.yml").write_text(yaml.safe_dump(other))
    with pytest.raises(InputError, match=r"holds the results of another recipe \(different: epochs, seed\)") as raised:
        check_results(made)
    assert "--results, or replace them with --overwrite" in str(raised.value)
    (folder / "recipe.yml").write_text(yaml.safe_dump({**earlier.to_dict(absolute=True), "target": "cpu_onnxruntime"}))
    check_results(made)
