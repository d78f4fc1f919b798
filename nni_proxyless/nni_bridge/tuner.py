"""The NNI tuner `LatencyBudget`, which compares search strategies at equal latency.

```yaml
tuner:
  name: LatencyBudget
  classArgs: {tolerance: 0.05, max_trials_per_cell: 6}
```

The tuner tries all combinations of the search space's values, such as target, strategy, budget and seed. Each
combination is a grid point. A strategy that meets the budget by itself needs one trial for each grid point. For the
other strategies, the tuner finds the latency weight by bisection on its logarithm, starting from the weight of a
neighbouring grid point.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nni
import requests
from nni.tuner import Tuner

from ..errors import InputError, shown
from ..files.reading import read_document
from ..files.writing import aligned, write_csv, write_json
from ..values import is_number
from .grid_points import (
    GridPoint,
    Rules,
    Trial,
    find_grid_point,
    next_parameters,
    parse_search_space,
    same_parameters,
    summary,
)
from .weight_search import WeightRange

_log = logging.getLogger(__name__)
_JOURNAL = "latency_budget.json"
_SUMMARY = "latency_budget.csv"
_CRASHED = {"FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"}
# Seconds to wait for the report of a crash: NNI may request the next trial, on another thread, before it reports one.
_PATIENCE_S = 5.0


class LatencyBudget(Tuner):
    """NNI tuner that compares strategies at equal latency; see the module's docstring.

    The arguments are the `classArgs` of an nnictl config.

    Args:
        tolerance: Largest relative deviation of the expected latency from the budget at which a grid point is done.
        max_trials_per_cell: Maximum number of trials in which the weight of one grid point ("cell") is searched, not
            counting those that crashed.
        weight_key: Name of the parameter that holds the latency weight.
        initial_weight: First weight to try if no neighbouring grid point has one.
        min_weight: Smallest weight to try.
        max_weight: Largest weight to try.
        one_trial_strategies: Strategies that need no latency weight; `proxyless` and `random` by default.

    Raises:
        ValueError: An argument has the wrong type or is out of range; the message says what is allowed.
    """

    def __init__(
        self,
        tolerance: float = 0.05,
        max_trials_per_cell: int = 6,
        weight_key: str = "latency_weight",
        initial_weight: float = 0.1,
        min_weight: float = 1e-3,
        max_weight: float = 100.0,
        one_trial_strategies: list[str] | None = None,
    ) -> None:
        _number("tolerance", tolerance, 0.0, 1.0)
        if not isinstance(max_trials_per_cell, int) or isinstance(max_trials_per_cell, bool) or max_trials_per_cell < 1:
            raise ValueError(
                f"LatencyBudget: max_trials_per_cell must be a whole number from 1, got {max_trials_per_cell!r}"
            )
        if not isinstance(weight_key, str) or not weight_key:
            raise ValueError(f"LatencyBudget: weight_key must be the name of a parameter, got {weight_key!r}")
        for name, value in (("min_weight", min_weight), ("initial_weight", initial_weight), ("max_weight", max_weight)):
            _number(name, value, 0.0, float("inf"))
        if not min_weight <= initial_weight <= max_weight:
            raise ValueError(
                "LatencyBudget: min_weight, initial_weight and max_weight must rise, got "
                f"{min_weight!r}, {initial_weight!r}, {max_weight!r}"
            )
        rules = Rules(tolerance, max_trials_per_cell, weight_key, WeightRange(initial_weight, min_weight, max_weight))
        if one_trial_strategies is not None:
            if not isinstance(one_trial_strategies, list) or not all(isinstance(n, str) for n in one_trial_strategies):
                raise ValueError(
                    f"LatencyBudget: one_trial_strategies must be a list of names, got {one_trial_strategies!r}"
                )
            rules = Rules(
                rules.tolerance, rules.max_trials_per_cell, weight_key, rules.weights, tuple(one_trial_strategies)
            )
        super().__init__()
        self._rules = rules
        self._points: list[GridPoint] = []
        self._trials: dict[int, Trial] = {}
        self._unused_ids: list[int] = []
        self._send: Callable[[int, dict[str, Any]], None] | None = None
        self._told = False
        self._before_resume: list[Trial] = []
        # NNI calls trial_end on one thread and all other methods on another.
        self._changed = threading.Condition()

    @property
    def rules(self) -> Rules:
        """The rules that follow from the arguments."""
        return self._rules

    def update_search_space(self, search_space: Mapping[str, Any]) -> None:
        """Set the search space. If it replaces another one, the grid points in both keep their trials."""
        with self._changed:
            points = parse_search_space(search_space, self._rules)
            for point in points:
                before = find_grid_point(self._points, point.values, self._rules)
                if before is not None:
                    point.trials = before.trials
            self._points = points
            self._told = False
            self._keep()
            self._use_left_over()

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> list[dict[str, Any]]:
        """Return parameters for as many trials as can be decided now.

        The other requests are answered through NNI's `st_callback` as soon as results make a decision possible.
        """
        with self._changed:
            self._send = kwargs.get("st_callback")
            self._ask_the_manager()
            handed: list[dict[str, Any]] = []
            for number, parameter_id in enumerate(parameter_id_list):
                parameters = self._next(parameter_id)
                if parameters is None:
                    self._unused_ids += parameter_id_list[number:]
                    break
                handed.append(parameters)
            self._keep()
            self._tell()
            return handed

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Return parameters for one trial, as NNI's interface requires.

        Raises:
            nni.NoMoreTrialError: No trial is left, or none can be chosen before a running trial has ended.
        """
        found = self.generate_multiple_parameters([parameter_id], **kwargs)
        if not found:
            raise nni.NoMoreTrialError("no trial is left, or none can be chosen before a running trial has ended")
        return found[0]

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Record a result. Results that come twice, late or for another search space do no harm."""
        with self._changed:
            self._record(parameters, value)
            self._keep()
            self._use_left_over()
            self._tell()
            self._changed.notify_all()

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Record the end of a trial. One without a result is repeated once with the same parameters."""
        with self._changed:
            trial = self._trials.get(parameter_id)
            if trial is not None and trial.state == "running" and not success:
                trial.state = "failed"
                trial.crashes += 1
                _log.warning(
                    "LatencyBudget: trial %s ended without a result%s", trial.parameters,
                    "; it is tried once more" if trial.crashes == 1 else " again; its grid point is given up",
                )  # fmt: skip
            self._keep()
            self._use_left_over()
            self._tell()
            self._changed.notify_all()

    def import_data(self, data: list[Any]) -> None:
        """Record results of earlier experiments or, after `nnictl resume`, of this one."""
        with self._changed:
            for record in data:
                self._record(record.get("parameter"), record.get("value"))
            self._keep()
            self._use_left_over()
            self._tell()

    def load_checkpoint(self) -> None:
        """Restore the state from before the experiment was stopped. NNI restarts interrupted trials by itself."""
        path = self._folder()
        if path is None or not (path / _JOURNAL).is_file():
            return
        known = read_document(path / _JOURNAL, "journal of the tuner", InputError)
        with self._changed:
            try:
                self._points = [
                    GridPoint(dict(entry["values"]), entry["tuned"], [Trial(**trial) for trial in entry["trials"]])
                    for entry in known
                ]
            except (LookupError, TypeError, ValueError) as reason:
                raise InputError(f"{path / _JOURNAL} is not a journal of LatencyBudget: {shown(known)}") from reason
            self._before_resume = [t for point in self._points for t in point.trials if t.state == "running"]
        _log.info("LatencyBudget: resuming with %d grid points", len(self._points))

    def save_checkpoint(self) -> None:
        """Do nothing. The state is written at each change, because the manager may be killed at any moment."""

    def _ask_the_manager(self) -> None:
        """Ask the manager which trials from before a resume crashed or never started: NNI does not report these."""
        jobs = manager_jobs() if self._before_resume else None
        if jobs is None:
            return
        for trial in list(self._before_resume):
            statuses = [status for parameters, status in jobs if same_parameters(parameters, trial.parameters)]
            if trial.state == "running" and not statuses:
                for point in self._points:  # the trial was still waiting when the manager was killed
                    point.trials = [other for other in point.trials if other is not trial]
            elif trial.state == "running" and not set(statuses) - _CRASHED:
                trial.state = "failed"
                trial.crashes = len(statuses)  # a repetition that never started has no job, so it is not counted
            if trial.state != "running" or not statuses:
                self._before_resume.remove(trial)

    def _next(self, parameter_id: int) -> dict[str, Any] | None:
        """Start a trial at the first grid point that needs one, and return its parameters; `None` if none does.

        While trials are running, this waits up to `_PATIENCE_S` seconds for results or crashes that need a next trial.
        """
        end = time.monotonic() + _PATIENCE_S
        while True:
            # Crashed trials are repeated last: `maxTrialNumber` may not leave room for a repetition and for the others.
            for point in sorted(self._points, key=lambda p: bool(p.trials) and p.trials[-1].state == "failed"):
                parameters = next_parameters(point, self._points, self._rules)
                if parameters is None:
                    continue
                last = point.trials[-1] if point.trials else None
                if last is not None and last.state == "failed":
                    last.state = "running"
                    trial = last
                else:
                    trial = Trial(parameters)
                    point.trials.append(trial)
                self._trials[parameter_id] = trial
                return dict(parameters)
            left = end - time.monotonic()
            if left <= 0 or not any(point.running for point in self._points):
                return None
            self._changed.wait(left)

    def _use_left_over(self) -> None:
        """Answer requests for trials that could not be answered when NNI made them."""
        while self._unused_ids and self._send is not None:
            parameters = None
            if any(next_parameters(point, self._points, self._rules) is not None for point in self._points):
                parameters = self._next(self._unused_ids[0])
            if parameters is None:
                return
            parameter_id = self._unused_ids.pop(0)
            self._keep()
            self._send(parameter_id, parameters)

    def _record(self, parameters: Any, value: Any) -> None:
        metrics = {"default": value} if isinstance(value, (int, float)) else value
        point = find_grid_point(self._points, parameters, self._rules) if isinstance(parameters, Mapping) else None
        if point is None or not isinstance(metrics, Mapping):
            _log.info("LatencyBudget: ignoring a result that belongs to no grid point: %s", parameters)
            return
        trial = next((t for t in point.trials if same_parameters(t.parameters, parameters)), None)
        if trial is None:
            trial = Trial(dict(parameters))
            point.trials.append(trial)
        trial.state = "done"
        trial.metrics = {str(k): float(v) for k, v in metrics.items() if is_number(v)}

    def _tell(self) -> None:
        """Log and write the summary once, when no trial is left."""
        left = any(p.running or next_parameters(p, self._points, self._rules) is not None for p in self._points)
        if self._told or left or not any(point.trials for point in self._points):
            return
        self._told = True
        rows = summary(self._points, self._rules)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        shown = [[_shown(row.get(column, "")) for column in columns] for row in rows]
        _log.info("LatencyBudget: no trial is left\n%s", "\n".join(aligned([columns, *shown])))
        folder = self._folder()
        if folder is not None:
            write_csv(folder / _SUMMARY, columns, rows)

    def _keep(self) -> None:
        folder = self._folder()
        if folder is not None:
            write_json(folder / _JOURNAL, [asdict(point) for point in self._points])

    def _folder(self) -> Path | None:
        path = os.environ.get("NNI_CHECKPOINT_DIRECTORY")
        return Path(path) if path and os.path.isdir(path) else None


def manager_jobs() -> list[tuple[dict[str, Any], str]] | None:
    """Parameters and status of each of the manager's trial jobs; `None` if the manager does not answer."""
    channel = os.environ.get("NNI_TUNER_COMMAND_CHANNEL", "")
    if not channel.startswith("ws://"):
        return None
    try:
        answer = requests.get(f"http://{channel[5:].rsplit('/', 1)[0]}/api/v1/nni/trial-jobs", timeout=10)
        jobs = answer.json()
        return [(json.loads(of)["parameters"], job["status"]) for job in jobs for of in job["hyperParameters"][:1]]
    except (requests.RequestException, ValueError, KeyError, TypeError) as reason:
        _log.warning("LatencyBudget: cannot get the list of trials from NNI's manager: %s", reason)
        return None


def _number(name: str, value: object, above: float, below: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not above < value < below:
        bounds = f"above {above:g}" + (f" and below {below:g}" if below != float("inf") else "")
        raise ValueError(f"LatencyBudget: {name} must be a number {bounds}, got {value!r}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
