"""`nni-proxyless run`: starts an nnictl config through NNI, follows the experiment and collects its results."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import InputError, RunError
from ..latency.judgement import warnings_of
from ..progress import new_bar, shows_bars, work_begins
from ..signals import ENDED_BY, INTERRUPTED, leave_word
from .collect import Outcome, collect, parameters_of
from .jobs import Job, list_jobs
from .manager import last_error, start_manager, stop_manager
from .plan import Plan
from .plan import check_config as check_config
from .registration import TUNER, register
from .shield import LOOPBACK, addresses, is_loopback, shield

if TYPE_CHECKING:
    from ..latency.costs import SpaceCosts
    from ..latency.table import LatencyTable
    from ..search.targets import Target

_log = logging.getLogger(__name__)
TUNERS = f"only {TUNER} continues where it was (docs/nni.md)"
GRACE_S = 8.0  # waiting time for another trial when the tuner has reported that it has none left
_SUBMITTING_S = 60.0  # the same while trials are missing: on a busy machine, NNI lists a new trial after many seconds
_DURATION = "maxExperimentDuration"
_CANCELLED = {"USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"}
_ENDED = {"SUCCEEDED", "FAILED", *_CANCELLED}


def measure_targets(plan: Plan, progress: Callable[[str], Any]) -> None:
    """Measure the latency table of each target that the plan's searches need.

    Each table is measured once, before any trial runs, so that trials do not disturb the measurement.

    Args:
        plan: Checked config.
        progress: Function that takes a title and returns a progress bar, such as `progress_bar`.

    Raises:
        InputError: A trial would refuse its recipe, or no network is within its budget.
    """
    from .preflight import check_budget, check_recipes

    tables: dict[tuple[Target, str], tuple[LatencyTable, SpaceCosts]] = {}
    for recipe, spec in list(check_recipes(plan.recipes)):
        targets = recipe.parse_targets()
        for name in (recipe.target, *recipe.other_targets):
            target = targets[name]
            needed = target, spec.content_hash
            if needed not in tables:
                with progress(f"measuring target {target.name}") as step:
                    table = target.latency_table(spec, remeasure=True, accept=recipe.accept_tables, progress=step)
                tables[needed] = table, table.costs(spec)
        costs = {name: tables[targets[name], spec.content_hash][1] for name in (recipe.target, *recipe.other_targets)}
        check_budget(recipe, costs[recipe.target], spec, costs)
    for (target, _), (table, applied) in tables.items():
        for text in warnings_of(table):
            _log.warning("target %s: %s", target.name, text)
        _log.info(
            "target %s: networks of this space take %.3g to %.3g ms",
            target.name,
            applied.smallest,
            applied.largest,
        )


def load_config(plan: Plan) -> Any:
    """Let NNI load and check a config.

    Returns:
        NNI's `ExperimentConfig`.

    Raises:
        InputError: NNI does not accept the config.
    """
    from nni.experiment.config import ExperimentConfig

    try:
        config = ExperimentConfig.load(plan.config)
        config.validate()
    except (ValueError, TypeError, AttributeError, AssertionError, KeyError, yaml.YAMLError) as reason:
        # NNI checks some settings by assertions without a message; their code says what is expected.
        why = " ".join(str(reason).split()) or f"it expects {traceback.extract_tb(reason.__traceback__)[-1].line}"
        raise InputError(f"NNI does not accept config {plan.config}: {why[:300]}") from reason
    return config


def run_experiment(
    plan: Plan, port: int | None, *, keep: bool = False, results: Path | None = None, host: str = LOOPBACK
) -> list[Outcome]:
    """Start a config through NNI's manager, follow the experiment to its end and collect the results of its trials.

    Args:
        plan: Checked config.
        port: Port of NNI's web UI; `None` for the first free one from 8080.
        keep: Whether the manager and its web UI keep running afterwards.
        results: Folder in which results are collected; `results/<folder of the config>` by default.
        host: Address on which the manager listens, besides 127.0.0.1.

    Returns:
        The outcome of each trial, in the order in which the trials were started.

    Raises:
        InputError: NNI does not accept the config.
        RunError: The manager did not start or stopped answering, or the experiment failed as a whole.
    """
    _put_commands_on_path()
    import requests

    register()
    config = load_config(plan)
    work_begins()
    with shield(host, with_parent=not keep):
        experiment, port = start_manager(config, port)
    home = Path(config.canonical_copy().experiment_working_directory) / experiment.id
    try:
        _say_where(experiment, port, host)
        if not plan.ends:
            _log.warning(
                "this experiment ends only when it is interrupted; set maxTrialNumber or maxExperimentDuration"
            )
        with _Follower(plan) as follower:
            _follow(experiment, home, follower, plan)
            jobs = list_jobs(experiment)
            for text in filter(None, (_cut_short(jobs, plan), _displaced(jobs, plan))):
                _log.warning(text)
        used: set[Path] = set()
        # The tuner's trials get their usual folders first.
        jobs.sort(key=lambda job: job.by_hand)
        outcomes = [_collect(job, home, results or plan.results, used) for job in jobs]
        outcomes = [_with_limit(outcome, plan.limits) for outcome in outcomes]
    except KeyboardInterrupt as stop:
        leave_word(stop, _how_to_go_on(experiment.id, home, port, plan))
        stop_manager(experiment)
        raise
    except BaseException as reason:
        stop_manager(experiment)
        if isinstance(reason, requests.RequestException):
            raise RunError(
                f"lost NNI's manager of experiment {experiment.id}, so its trials end; continue with: "
                f"nni-proxyless nnictl resume {experiment.id} --port {port} ({str(reason)[-200:]})"
            ) from reason
        raise
    if keep:
        _log.info("The web UI stays up at http://localhost:%d; stop it with: nnictl stop %s", port, experiment.id)
    else:
        stop_manager(experiment)
    return outcomes


def _how_to_go_on(experiment: str, home: Path, port: int, plan: Plan) -> str:
    """Say what an interrupted experiment leaves, and the command that goes on with it."""
    twice = "" if plan.survives else f"; its tuner may choose some trials twice: {TUNERS}"
    return (
        f"finished trials and checkpoints are kept in {home}; continue with: nni-proxyless nnictl resume {experiment} "
        f"--port {port}{twice}"
    )


def _put_commands_on_path() -> None:
    """Let trials, which inherit the manager's environment, find the command `nni-proxyless` of this installation."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _collect(job: Job, home: Path, results: Path, used: set[Path]) -> Outcome:
    """Collect the results of a trial. If they cannot be read, those of the others are still collected."""
    try:
        return collect(job, home, results, used)
    except InputError as reason:
        return Outcome(job.trialJobId, parameters_of(job), job.status, reason=str(reason), by_hand=job.by_hand)


def _with_limit(outcome: Outcome, limits: Mapping[str, str]) -> Outcome:
    """Say that NNI has ended a trial because of a limit of time, instead of the last line of its output."""
    # NNI interrupts a trial that has taken too long, so it may count as failed.
    signalled = any(f": {text}" in outcome.reason for text in (INTERRUPTED, f"{ENDED_BY}SIG"))
    ended = outcome.status in _CANCELLED or (outcome.status == "FAILED" and signalled)
    if not ended or not limits:
        return outcome
    named = " or ".join(f"{key}: {value}" for key, value in limits.items())
    return replace(outcome, reason=f"NNI ended it because of {named}")


def _cut_short(jobs: list[Any], plan: Plan) -> str | None:
    """Return a warning if the experiment's duration has ended it before all planned trials have succeeded."""
    duration = plan.limits.get(_DURATION)
    done = sum(job.status == "SUCCEEDED" for job in jobs)
    if duration is None or done >= plan.trials or any(job.status == "FAILED" for job in jobs):
        return None
    return f"{_DURATION}: {duration} has ended the experiment after {done} of {plan.trials} trials"


def _displaced(jobs: list[Job], plan: Plan) -> str | None:
    """Return a warning if trials made by hand have taken the place of trials of the tuner. NNI counts both alike."""
    by_hand = sum(job.by_hand for job in jobs)
    others = len(jobs) - by_hand
    if not by_hand or others >= plan.trials or plan.limits.get(_DURATION) is not None:
        return None
    made = "1 trial made by hand counts" if by_hand == 1 else f"{by_hand} trials made by hand count"
    return (
        f"{made} for maxTrialNumber, so {others} of {plan.trials} trials of the tuner were run; raise maxTrialNumber "
        "in the web UI before adding trials"
    )


def _say_where(experiment: Any, port: int, host: str) -> None:
    """Log where the web UI is, and on which address it listens.

    Raises:
        RunError: It listens on another address than it should, as an NNI other than 3.0 may.
    """
    _log.info("NNI web UI: http://localhost:%d (experiment %s)", port, experiment.id)
    found = addresses(experiment._proc.pid)
    if is_loopback(host):
        open_to = sorted(address for address in found if not is_loopback(address))
        if open_to:
            raise RunError(f"NNI's manager listens on {', '.join(open_to)}, and not on this machine only; see --host")
        _log.info("it listens on 127.0.0.1 only; from another machine: ssh -L %d:localhost:%d %s", port, port, _name())
    else:
        _log.warning(
            "it listens on %s without a password: anyone who reaches port %d can read your files and start trials",
            host,
            port,
        )


def _name() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


class _Follower:
    """Shows the progress of an experiment: a bar over all epochs on a terminal, one line for each epoch elsewhere."""

    def __init__(self, plan: Plan) -> None:
        self._bar: Any = None
        if shows_bars():
            epochs = sum(recipe.epochs for recipe in plan.recipes) / len(plan.recipes)
            self._bar = new_bar("searching", round(plan.trials * epochs), "epoch", leave=True)

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def line(self, text: str) -> None:
        """Print a line; on a terminal, the log puts it above the bar."""
        _log.info(text)

    def epoch(self, text: str) -> None:
        """Count one epoch of any trial, and show its result."""
        if self._bar is None:
            _log.info(text)
        else:
            self._bar.set_postfix_str(text)
            self._bar.update()


def _follow(experiment: Any, home: Path, follower: _Follower, plan: Plan) -> None:
    """Show each new intermediate result and each change of a trial's status, until the experiment has ended.

    Raises:
        RunError: The experiment failed.
    """
    shown: dict[str, int] = {}
    statuses: dict[str, str] = {}
    told = False
    idle_since: float | None = None
    while True:
        status = experiment.get_status()
        for job in list_jobs(experiment):
            name = f"trial {job.sequenceId}"
            if statuses.get(job.trialJobId) != job.status:
                statuses[job.trialJobId] = job.status
                follower.line(f"{name} {job.status.lower()}: {_short(parameters_of(job))}")
            if job.status in {"RUNNING", "SUCCEEDED"}:
                metrics = experiment.get_job_metrics(job.trialJobId).get(job.trialJobId, [])
                known = [m for m in metrics if m.type == "PERIODICAL" and _is_result(m.data)]
                known.sort(key=lambda m: m.sequence)
                for metric in known[shown.get(job.trialJobId, 0) :]:
                    follower.epoch(f"{name} result {metric.sequence + 1}: {_result(metric.data)}")
                shown[job.trialJobId] = len(known)
        if status in {"DONE", "STOPPED"}:
            return
        if not told and status == "NO_MORE_TRIAL" and len(statuses) < plan.trials and _DURATION in plan.limits:
            told = True
            limit = f"{_DURATION}: {plan.limits[_DURATION]}"
            follower.line(f"{limit} has passed, so no further trial is started; the running ones continue to their end")
        if status == "ERROR":
            errors = experiment.get_experiment_profile().get("errors") or []
            named = "; ".join(str(error)[:200] for error in errors[-2:])
            named += f" ({logged})" if (logged := last_error(home / "log")) else ""
            raise RunError(f"NNI's experiment {experiment.id} failed: {named}; see nnictl log stderr {experiment.id}")
        # NNI never reports DONE when the tuner has no more trials. The tuner may still send one after a crash.
        waits = status in {"NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL"} and all(s in _ENDED for s in statuses.values())
        idle_since = (idle_since or time.monotonic()) if waits else None
        grace = GRACE_S if len(statuses) >= plan.trials else _SUBMITTING_S
        if idle_since is not None and time.monotonic() - idle_since > grace:
            return
        time.sleep(1.0)


def _is_result(found: object) -> bool:
    """Whether a metric is that of a search or a retraining, and not one that another program has sent."""
    # A loss that is not finite is left out.
    if not isinstance(found, Mapping) or not isinstance(found.get("default"), (int, float)):
        return False
    if "latency_ms" not in found:  # a retraining sends at least one of these
        return any(isinstance(found.get(key), (int, float)) for key in ("top5", "balanced_accuracy", "train_loss"))
    return all(isinstance(found.get(key), (int, float)) for key in ("latency_ms", "expected_latency_ms", "entropy"))


def _result(found: Mapping[str, Any]) -> str:
    """Format an intermediate result of a search or of a retraining as one line."""
    text = f"accuracy {found['default']:.4f}, "
    if "latency_ms" in found:
        text += (
            f"latency {found['latency_ms']:.3g} ms (expected {found['expected_latency_ms']:.3g}), "
            f"entropy {found['entropy']:.2f}, "
        )
    else:
        for key, name in (("balanced_accuracy", "balanced"), ("top5", "top-5")):
            text += f"{name} {found[key]:.4f}, " if isinstance(found.get(key), (int, float)) else ""
    loss = found.get("train_loss")
    return text + (f"loss {loss:.3f}" if isinstance(loss, (int, float)) else "loss not finite")


def _short(parameters: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key:.100}={value!s:.200}" for key, value in parameters.items()) or "no parameters yet"
    return text if len(text) <= 400 else f"{text[:400]}…"
