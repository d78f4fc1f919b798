"""`nni-proxyless run`: starts an nnictl config through NNI, follows the experiment and collects its results."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ..deploy.retrain_recipe import RetrainRecipe
from ..errors import InputError, RunError, unknown_name
from ..files import read_mapping
from ..search.recipe import Recipe
from .collect import Outcome, collect, parameters_of
from .ports import port_is_free
from .registration import register
from .trial import TASKS

_log = logging.getLogger(__name__)
MAX_COMBINATIONS_CHECKED = 1000
GRACE_S = 8.0  # waiting time for another trial when the tuner has reported that it has none left
_ENDED = {"SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"}


@dataclass(frozen=True)
class Plan:
    """A config that has been checked.

    Attributes:
        config: Path of the config.
        recipe_path: Path of the recipe that the trial command names.
        recipes: Recipes with the parameters of the search space, one for each combination. If there are more than
            `MAX_COMBINATIONS_CHECKED` combinations, only as many as are needed to include each value.
        trials: Expected number of trials: the number of combinations, limited by the config's `maxTrialNumber`.
    """

    config: Path
    recipe_path: Path
    recipes: tuple[Recipe | RetrainRecipe, ...]
    trials: int

    @property
    def name(self) -> str:
        return self.config.resolve().parent.name


def check_config(path: Path) -> Plan:
    """Check a config, its recipe and its search space before anything is started.

    Raises:
        InputError: One of the three is invalid; the message says where.
    """
    content = read_mapping(path, "config", InputError)
    command = content.get("trialCommand")
    if not isinstance(command, str):
        raise InputError(f"config {path}: 'trialCommand' must be a text, got {command!r}")
    words = shlex.split(command)
    if "--recipe" not in words[:-1]:
        raise InputError(f"config {path}: trialCommand must be 'nni-proxyless trial --recipe FILE', got '{command}'")
    folder = path.resolve().parent / str(content.get("trialCodeDirectory", "."))
    recipe_path = folder / words[words.index("--recipe") + 1]
    space = content.get("searchSpace")
    if space is None and isinstance(content.get("searchSpaceFile"), str):
        space = read_mapping(path.resolve().parent / content["searchSpaceFile"], "search space", InputError)
    if not isinstance(space, Mapping):
        raise InputError(f"config {path}: 'searchSpace' must be a mapping, got {space!r}")
    values = {key: _values(path, key, described) for key, described in space.items()}
    task = words[words.index("--task") + 1] if "--task" in words[:-1] else "search"
    if task not in TASKS:
        raise InputError(f"config {path}: " + unknown_name("task", task, TASKS))
    recipes = []
    for chosen in _combinations(values):
        recipe = TASKS[task].load(recipe_path, chosen)
        if isinstance(recipe, Recipe):
            recipe.chosen_target()
        recipes.append(recipe)
    service = content.get("trainingService")
    platform = service.get("platform") if isinstance(service, Mapping) else None
    if platform != "local":
        raise InputError(
            f"config {path}: 'run' measures and collects on this machine, so trainingService.platform must be 'local', "
            f"got {platform!r}; start other services with: nnictl create --config {path}"
        )
    most = content.get("maxTrialNumber")
    combinations = math.prod(map(len, values.values()))
    return Plan(path, recipe_path, tuple(recipes), min(combinations, most) if isinstance(most, int) else combinations)


def _combinations(values: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations of the values.

    If there are more than `MAX_COMBINATIONS_CHECKED`, only the combination of all first values is returned, and those
    that differ from it in one value.
    """
    if math.prod(map(len, values.values())) <= MAX_COMBINATIONS_CHECKED:
        return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    first = {key: listed[0] for key, listed in values.items()}
    return [first, *({**first, key: value} for key, listed in values.items() for value in listed[1:])]


def _values(path: Path, key: str, described: object) -> list[Any]:
    if isinstance(described, Mapping) and described.get("_type") == "choice":
        values = described.get("_value")
        if isinstance(values, list) and values:
            return values
    if isinstance(described, Mapping) and isinstance(described.get("_value"), list) and "_type" in described:
        return list(described["_value"][:1])  # a range such as uniform: its lower bound stands for all values
    raise InputError(f"config {path}: searchSpace.{key} must be like {{_type: choice, _value: […]}}, got {described!r}")


def check_port(port: int | None) -> int:
    """Choose the port of NNI's web UI: the given one, or the first free one from 8080.

    Raises:
        InputError: The given port is busy or out of range.
    """
    if port is not None:
        if not 0 < port < 65536:
            raise InputError(f"port must be from 1 to 65535, got {port}")
        if not port_is_free(port):
            raise InputError(f"port {port} is busy; choose another with --port, or stop what uses it")
        return port
    return next(candidate for candidate in range(8080, 65536) if port_is_free(candidate))


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
            table = target.latency_table(spec, remeasure=True, progress=step)
        costs = table.costs(spec)
        _log.info(
            "target %s: networks of this space take %.3g to %.3g ms",
            target.name,
            costs.smallest,
            costs.largest,
        )


def run_experiment(plan: Plan, port: int, *, keep: bool = False, results: Path | None = None) -> list[Outcome]:
    """Start a config through NNI's manager, follow the experiment to its end and collect the results of its trials.

    Args:
        plan: Checked config.
        port: Port of NNI's web UI.
        keep: Whether the manager and its web UI keep running afterwards.
        results: Folder in which results are collected; `results/<folder of the config>` by default.

    Returns:
        The outcome of each trial, in the order in which the trials were started.

    Raises:
        InputError: NNI does not accept the config.
        RunError: The manager did not start or stopped answering, or the experiment failed as a whole.
    """
    # Trials inherit the manager's environment, and their command `nni-proxyless` must be on PATH.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    import requests
    from nni.experiment import Experiment, RunMode
    from nni.experiment.config import ExperimentConfig

    register()
    try:
        config = ExperimentConfig.load(plan.config)
        config.validate()
    except (ValueError, TypeError, AttributeError, AssertionError, KeyError, yaml.YAMLError) as reason:
        raise InputError(f"NNI does not accept config {plan.config}: {' '.join(str(reason).split())}") from reason
    experiment = Experiment(config)
    home = Path(config.canonical_copy().experiment_working_directory) / experiment.id
    try:
        experiment.start(port, False, RunMode.Detach)
    except Exception as reason:
        raise RunError(f"NNI's manager did not start: {' '.join(str(reason).split())}") from reason
    _log.info("NNI web UI: http://localhost:%d (experiment %s)", port, experiment.id)
    try:
        with _Follower(plan) as follower:
            _follow(experiment, follower)
        used: set[Path] = set()
        outcomes = [collect(job, home, results or Path("results") / plan.name, used) for job in _jobs(experiment)]
    except BaseException as reason:
        experiment.stop()
        if isinstance(reason, KeyboardInterrupt):
            _log.info("stopped; go on with: nnictl resume %s --port %d", experiment.id, port)
        if isinstance(reason, requests.RequestException):
            raise RunError(f"lost NNI's manager of experiment {experiment.id}: {reason}") from reason
        raise
    if keep:
        _log.info("The web UI stays up at http://localhost:%d; stop it with: nnictl stop %s", port, experiment.id)
    else:
        experiment.stop()
    return outcomes


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


def _follow(experiment: Any, follower: _Follower) -> None:
    """Show each new intermediate result and each change of a trial's status, until the experiment has ended.

    Raises:
        RunError: The experiment failed.
    """
    shown: dict[str, int] = {}
    statuses: dict[str, str] = {}
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
