"""`nni-proxyless run`: starts an nnictl config through NNI, follows the experiment and collects its results."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, RunError
from ..latency.judgement import warnings_of
from ..search.recipe import Recipe
from .collect import Outcome, collect, parameters_of
from .manager import start_manager
from .plan import Plan
from .plan import check_config as check_config
from .registration import TUNER, register

_log = logging.getLogger(__name__)
TUNERS = f"only {TUNER} goes on where it was (docs/nni.md)"
GRACE_S = 8.0  # waiting time for another trial when the tuner has reported that it has none left
_DURATION = "maxExperimentDuration"
_CANCELLED = {"USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"}
_ENDED = {"SUCCEEDED", "FAILED", *_CANCELLED}


def measure_targets(plan: Plan, progress: Callable[[str], Any]) -> None:
    """Measure the latency table of each target that the plan's searches need.

    Each table is measured once, before any trial runs, so that trials do not disturb the measurement.

    Args:
        plan: Checked config.
        progress: Function that takes a title and returns a progress bar, such as `progress_bar`.
    """
    from ..search.prepared import load_recipe_data

    done = set()
    for recipe in plan.recipes:
        if not isinstance(recipe, Recipe):
            continue
        spec, _ = load_recipe_data(recipe)
        target = recipe.chosen_target()
        if (target, spec.content_hash) in done:
            continue
        done.add((target, spec.content_hash))
        with progress(f"measuring target {target.name}") as step:
            table = target.latency_table(spec, remeasure=True, accept=recipe.accept_tables, progress=step)
        costs = table.costs(spec)
        for text in warnings_of(table):
            _log.warning("target %s: %s", target.name, text)
        _log.info(
            "target %s: networks of this space take %.3g to %.3g ms",
            target.name,
            costs.smallest,
            costs.largest,
        )


def run_experiment(plan: Plan, port: int | None, *, keep: bool = False, results: Path | None = None) -> list[Outcome]:
    """Start a config through NNI's manager, follow the experiment to its end and collect the results of its trials.

    Args:
        plan: Checked config.
        port: Port of NNI's web UI; `None` for the first free one from 8080.
        keep: Whether the manager and its web UI keep running afterwards.
        results: Folder in which results are collected; `results/<folder of the config>` by default.

    Returns:
        The outcome of each trial, in the order in which the trials were started.

    Raises:
        InputError: NNI does not accept the config.
        RunError: The manager did not start or stopped answering, or the experiment failed as a whole.
    """
    _put_commands_on_path()
    import requests
    from nni.experiment.config import ExperimentConfig

    register()
    try:
        config = ExperimentConfig.load(plan.config)
        config.validate()
    except (ValueError, TypeError, AttributeError, AssertionError, KeyError, yaml.YAMLError) as reason:
        # NNI checks some settings by assertions without a message; their code says what is expected.
        why = " ".join(str(reason).split()) or f"it expects {traceback.extract_tb(reason.__traceback__)[-1].line}"
        raise InputError(f"NNI does not accept config {plan.config}: {why}") from reason
    experiment, port = start_manager(config, port)
    home = Path(config.canonical_copy().experiment_working_directory) / experiment.id
    _log.info("NNI web UI: http://localhost:%d (experiment %s)", port, experiment.id)
    try:
        with _Follower(plan) as follower:
            _follow(experiment, follower, plan)
            if (text := _cut_short(_jobs(experiment), plan)) is not None:
                _log.warning(text)
        used: set[Path] = set()
        outcomes = [collect(job, home, results or plan.results, used) for job in _jobs(experiment)]
        outcomes = [_with_limit(outcome, plan.limits) for outcome in outcomes]
    except BaseException as reason:
        experiment.stop()
        if isinstance(reason, KeyboardInterrupt):
            _log.info("stopped; go on with: nnictl resume %s --port %d", experiment.id, port)
            if not plan.survives:
                _log.info(
                    "its tuner does not know which trials it has already chosen, so some may come twice: %s", TUNERS
                )
        if isinstance(reason, requests.RequestException):
            raise RunError(f"lost NNI's manager of experiment {experiment.id}: {reason}") from reason
        raise
    if keep:
        _log.info("The web UI stays up at http://localhost:%d; stop it with: nnictl stop %s", port, experiment.id)
    else:
        experiment.stop()
    return outcomes


def _put_commands_on_path() -> None:
    """Let trials, which inherit the manager's environment, find the command `nni-proxyless` of this installation."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _with_limit(outcome: Outcome, limits: Mapping[str, str]) -> Outcome:
    """Say that NNI has ended a trial because of a limit of time, instead of the last line of its output."""
    # NNI interrupts a trial that has taken too long, so it may count as failed.
    ended = outcome.status in _CANCELLED or (outcome.status == "FAILED" and ": interrupted" in outcome.reason)
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


def _jobs(experiment: Any) -> list[Any]:
    return sorted(experiment.list_trial_jobs(), key=lambda job: job.sequenceId)


class _Follower:
    """Shows the progress of an experiment: a bar over all epochs on a terminal, one line for each epoch elsewhere."""

    def __init__(self, plan: Plan) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            epochs = sum(recipe.epochs for recipe in plan.recipes) / len(plan.recipes)
            self._bar = tqdm(total=round(plan.trials * epochs), desc="searching", unit="epoch")

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def line(self, text: str) -> None:
        """Print a line; on a terminal, above the bar."""
        if self._bar is None:
            _log.info(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def epoch(self, text: str) -> None:
        """Count one epoch of any trial, and show its result."""
        if self._bar is None:
            _log.info(text)
        else:
            self._bar.set_postfix_str(text)
            self._bar.update()


def _follow(experiment: Any, follower: _Follower, plan: Plan) -> None:
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
        for job in _jobs(experiment):
            name = f"trial {job.sequenceId}"
            if statuses.get(job.trialJobId) != job.status:
                statuses[job.trialJobId] = job.status
                follower.line(f"{name} {job.status.lower()}: {_short(parameters_of(job))}")
            if job.status in {"RUNNING", "SUCCEEDED"}:
                metrics = experiment.get_job_metrics(job.trialJobId).get(job.trialJobId, [])
                known = [m for m in metrics if m.type == "PERIODICAL" and isinstance(m.data, dict)]
                known.sort(key=lambda m: m.sequence)
                for metric in known[shown.get(job.trialJobId, 0) :]:
                    follower.epoch(f"{name} result {metric.sequence + 1}: {_result(metric.data)}")
                shown[job.trialJobId] = len(known)
        if status in {"DONE", "STOPPED"}:
            return
        if not told and status == "NO_MORE_TRIAL" and len(statuses) < plan.trials and _DURATION in plan.limits:
            told = True
            limit = f"{_DURATION}: {plan.limits[_DURATION]}"
            follower.line(f"{limit} has passed, so no further trial is started; the running ones go on to their end")
        if status == "ERROR":
            errors = experiment.get_experiment_profile().get("errors") or []
            raise RunError(f"NNI's experiment {experiment.id} failed: {errors}; see nnictl log stderr {experiment.id}")
        # NNI never reports DONE when the tuner has no more trials. The tuner may still send one after a crash.
        waits = status in {"NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL"} and all(s in _ENDED for s in statuses.values())
        idle_since = (idle_since or time.monotonic()) if waits else None
        if idle_since is not None and time.monotonic() - idle_since > GRACE_S:
            return
        time.sleep(1.0)


def _result(found: Mapping[str, Any]) -> str:
    """Format an intermediate result of a search or of a retraining as one line."""
    text = f"accuracy {found['default']:.4f}, "
    if "latency_ms" in found:
        text += (
            f"latency {found['latency_ms']:.3g} ms (expected {found['expected_latency_ms']:.3g}), "
            f"entropy {found['entropy']:.2f}, "
        )
    else:
        text += f"top-5 {found['top5']:.4f}, "
    return text + f"loss {found['train_loss']:.3f}"


def _short(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in parameters.items()) or "no parameters yet"
